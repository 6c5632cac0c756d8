'use strict';
/* What a call prints: the start and the end of it. */

class Output {
    constructor(kept) {
        Object.assign(this, {kept, total: 0, head: [], room: Math.ceil(kept / 2), tail: [], tailSize: 0});
    }

    add(data) {
        this.total += data.length;
        const first = data.subarray(0, this.room);
        if (first.length) {
            this.head.push(Buffer.from(first));
            this.room -= first.length;
        }
        const most = Math.floor(this.kept / 2);
        const rest = data.subarray(Math.max(first.length, data.length - most));
        if (!rest.length)
            return;
        this.tail.push(Buffer.from(rest));
        this.tailSize += rest.length;
        // Small pieces are joined: a piece has a price of its own, and so has an array's first element that goes.
        if (this.tailSize > 2 * most || this.tail.length > 1000) {
            const joined = Buffer.concat(this.tail);
            this.tail = [Buffer.from(joined.subarray(Math.max(0, joined.length - most)))];
            this.tailSize = this.tail[0].length;
        }
    }

    bytes() {
        const tail = Buffer.concat(this.tail);
        return Buffer.concat([...this.head, tail.subarray(Math.max(0, tail.length - Math.floor(this.kept / 2)))]);
    }
}

/* Returns at most about limit bytes of what is left of total, and whether anything is missing. */
function shorten(kept, total, limit) {
    if (kept.length === total && total <= limit)
        return [kept.toString(), false];
    const head = kept.subarray(0, Math.ceil(limit / 2));
    const tail = kept.subarray(Math.max(head.length, kept.length - Math.floor(limit / 2)));
    const leftOut = total - head.length - tail.length;
    return [`${head}\n[... ${leftOut} bytes left out ...]\n${tail}`, true];
}

module.exports = {Output, shorten};
