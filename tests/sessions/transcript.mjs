// What a client sees of a server, written down so that two runs can be compared: steps with their outcome, without
// what differs from run to run.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const npm = process.env.MCP_EXEC_TEST_NPM ?? new URL('../npm', import.meta.url).pathname;
const require = createRequire(join(npm, 'package.json'));

/** Imports a package of tests/npm. */
export const load = (name) => import(pathToFileURL(require.resolve(name)));

const PATIENCE = 30_000;
const ID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b/g;
const TIME = /\d{1,2}:\d{2}:\d{2}(\s[AP]M)?/g;
const DATE = /\d{4}-\d{2}-\d{2}T[\d:.]+Z/g;

/** True where that is the progress of something with so many steps; else what it was. The last ones may be missing: the SDKs' clients look at an
 *  answer before they look at what came just ahead of it. */
export const isProgress = (list, total) => {
    const own = list.filter((one) => !isRound(one));

    return (own.every((one, i) => one.progress === i + 1 && one.total === total && Object.keys(one).length === 2) && own.length <= total) || list;
};

/** What a stateless client tells of as progress: a round of questions. A server that asks for roots some time after its start
 *  asks in the midst of whatever call is under way. */
export const isRound = (one) => one.message?.startsWith('Fulfilling input required');

export class Transcript {
    #steps = [];
    #names = new Map(); // ids that the server or a client chose, in the order in which they were seen

    /** What was seen outside of an answer: requests and notifications of the server. */
    seen = [];
    #waiting = [];

    #text(text) {
        return text
            .replace(ID, (id) => {
                if (!this.#names.has(id))
                    this.#names.set(id, `<id ${this.#names.size + 1}>`);
                return this.#names.get(id);
            })
            .replace(DATE, '<date>')
            .replace(TIME, '<time>');
    }

    normal(value) {
        if (typeof value === 'string')
            return this.#text(value);
        if (Array.isArray(value))
            return value.map((element) => this.normal(element));
        if (value && typeof value === 'object')
            return Object.fromEntries(Object.entries(value).filter(([key, member]) => member !== undefined && key !== 'progressToken').map(([key, member]) =>
                // The bytes of what says the time
                [key, key === 'blob' && /^UmVzb3VyY2Ug/.test(member)
                    ? this.#text(Buffer.from(member, 'base64').toString()) : this.normal(member)]));
        return value;
    }

    note(name, value) {
        this.#steps.push([name, this.normal(value) ?? null]);
    }

    /** A step: its result, or the error that it ended with. Returns the result. */
    async step(name, action) {
        try {
            const result = await action();
            this.note(name, { result });
            return result;
        } catch (error) {
            if (error.code === undefined && error.name !== 'AbortError')
                throw new Error(`${name}: ${error.message}`, { cause: error });
            this.note(name, { error: { code: error.code, message: error.message, data: error.data } });
            return undefined;
        }
    }

    /** Something that came by itself. */
    saw(what, value) {
        this.seen.push([what, value]);
        for (const waiting of this.#waiting.splice(0))
            waiting();
    }

    /** Waits until matches(what, value) is true of something that was seen, and takes it out; notes it where it
     *  doesn't come. */
    async expect(description, matches) {
        const deadline = Date.now() + PATIENCE;
        for (;;) {
            const index = this.seen.findIndex(([what, value]) => matches(what, value));
            if (index >= 0)
                return this.seen.splice(index, 1)[0][1];
            if (Date.now() > deadline) {
                this.note(`not seen: ${description}`, this.seen);
                return {};
            }
            await new Promise((resolve) => {
                const timer = setTimeout(resolve, deadline - Date.now() + 1);
                this.#waiting.push(() => {
                    clearTimeout(timer);
                    resolve();
                });
            });
        }
    }

    forget(matches = () => true) {
        this.seen = this.seen.filter(([what, value]) => !matches(what, value));
    }

    print() {
        process.stdout.write(`${JSON.stringify(this.#steps, null, 1)}\n`);
    }
}
