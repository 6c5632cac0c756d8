'use strict';
/* A runner, as the server sees it: a process group of its own, what comes out of it, and the channel to it. */

const {spawn} = require('child_process');
const {randomBytes} = require('crypto');
const fs = require('fs');
const path = require('path');

const MESSAGE_MAX = 8 * 1024 * 1024;
const SAID_MAX = 4096;  // bytes of stderr that are kept from before it was ready
const MARK = 'MCP_EXEC_RUNNER';
const buffer = Buffer.allocUnsafe(65536);

class Runner {
    constructor(isolation, preload, handler) {
        Object.assign(this, {handler, ready: false, touched: false, ended: false, retired: false, call: null, secret: ''});
        this.received = [];
        this.receivedSize = 0;
        this.said = [];
        this.mark = randomBytes(16).toString('hex');
        // Without the flag Node 22 and newer have no import() in a context, and no warning comes from it here.
        const program = path.join(__dirname, 'mcp-exec-node-runner.js');
        this.process = spawn(process.execPath, ['--experimental-vm-modules', program, isolation, ...preload], {
            stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
            detached: true,  // to kill it with all that it has started
            env: {...process.env, [MARK]: this.mark},
        });
        this.process.on('error', (error) => this.hasEnded(1, null, `cannot start ${process.execPath}: ${error.message}`));
        this.process.on('exit', (code, signal) => this.hasEnded(code, signal));
        this.process.stdout.on('data', (data) => this.printed('stdout', data));
        this.process.stderr.on('data', (data) => this.printed('stderr', data));
        this.channel = this.process.stdio[3];
        this.channel.on('data', (data) => this.receive(data));
        for (const stream of this.process.stdio) {
            if (stream)
                stream.on('error', () => {});
        }
    }

    run(call) {
        this.call = call;
        this.secret = randomBytes(16).toString('hex');
        const {code, stdin = ''} = call.args;
        this.channel.write(JSON.stringify({secret: this.secret, code, stdin}) + '\n');
    }

    printed(name, data) {
        if (this.call)
            this.call[name].add(data);
        else if (!this.ready && name === 'stderr' && this.said.length < 16)
            this.said.push(data.subarray(0, SAID_MAX));
    }

    /* Takes what has been printed, and not read yet. */
    drain() {
        for (const name of ['stdout', 'stderr']) {
            const fd = this.process[name]?._handle?.fd ?? -1;
            // With an end, even if a child writes as fast as this reads.
            for (let round = 0; fd >= 0 && round < 64; round++) {
                let size = 0;
                try {
                    size = fs.readSync(fd, buffer, 0, buffer.length, null);
                } catch {
                    // Nothing there: EAGAIN.
                }
                if (!size)
                    break;
                this.printed(name, buffer.subarray(0, size));
            }
        }
    }

    /* Forgets what was printed since the last call. */
    discard() {
        this.call = null;
        this.drain();
    }

    receive(data) {
        for (let end; (end = data.indexOf(10)) >= 0 && !this.retired; data = data.subarray(end + 1)) {
            const line = Buffer.concat([...this.received, data.subarray(0, end)]).toString();
            this.received = [];
            this.receivedSize = 0;
            this.handle(line);
        }
        this.received.push(data);
        this.receivedSize += data.length;
        if (this.receivedSize > MESSAGE_MAX && !this.retired)
            this.handler.runnerTalksNonsense(this);
    }

    /* The channel is open to the code, too. It can't know the secret of its call, unless it has got at this process's
     * memory; and before it gets at anything of the kind it is known as touched. */
    handle(line) {
        if (line === 'touched') {
            if (!this.touched) {
                this.touched = true;
                this.handler.runnerIsTouched(this);
            }
            return;
        }
        if (line === 'ready' && !this.ready) {
            this.ready = true;
            this.handler.runnerIsReady(this);
            return;
        }
        let message = null;
        if (this.secret && line.startsWith(this.secret)) {
            try {
                message = JSON.parse(line.slice(this.secret.length));
            } catch {
                // Nonsense: below.
            }
        }
        if (!message)
            return this.handler.runnerTalksNonsense(this);
        this.secret = '';
        this.handler.runnerIsDone(this, message);
    }

    hasEnded(code, signal, reason) {
        if (this.ended)
            return;
        this.ended = true;
        if (this.retired)
            return;
        this.drain();
        const said = reason || Buffer.concat(this.said).toString().trim();
        this.handler.runnerHasEnded(this, code, signal, said);
    }

    close() {
        this.channel.end();
    }

    kill() {
        try {
            process.kill(-this.process.pid, 'SIGKILL');
        } catch {
            // It has ended, and all of its group.
        }
    }

    /* Ends it, with what left its process group. */
    retire() {
        this.retired = true;
        this.call = null;
        this.kill();
        for (const stream of this.process.stdio)
            stream?.destroy();
        if (this.touched)
            this.sweep().catch(() => {});
    }

    async sweep() {
        for (let found = true, round = 0; found && round < 5; round++) {
            found = false;
            for (const pid of await fs.promises.readdir('/proc')) {
                if (!/^\d+$/.test(pid) || Number(pid) === process.pid)
                    continue;
                const environ = await fs.promises.readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
                if (environ.includes(`${MARK}=${this.mark}\0`)) {
                    found = true;
                    try {
                        process.kill(Number(pid), 'SIGKILL');
                    } catch {
                        // It has ended.
                    }
                }
            }
        }
    }
}

module.exports = {Runner};
