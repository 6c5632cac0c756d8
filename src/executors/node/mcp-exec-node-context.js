/* Evaluated in each new context: what the code finds there. Nothing of the outer realm is handed to it, neither as an
 * argument nor in an error, but by host.grant(). What is used after the code has begun is taken beforehand. */
(host, names, alone) => {
    'use strict';
    const {apply, defineProperty, getPrototypeOf} = Reflect;
    const {print, grant, touch, arm, disarm} = host;
    const {then} = Promise.prototype;
    const {prototype: root} = Object;
    const global = globalThis;
    const GivenError = Error, GivenTypeError = TypeError, GivenPromise = Promise, GivenMap = Map, GivenNumber = Number;
    const {get: mapGet, set: mapSet, delete: mapDelete} = Map.prototype;
    const resolved = Promise.resolve();

    const isOurs = (error) => {
        if (typeof error !== 'object' || error === null)
            return typeof error !== 'function';
        let top = error;
        for (let next; (next = getPrototypeOf(top)) !== null;)
            top = next;
        return top === root;
    };

    // Errors of the outer realm stay there.
    const guarded = (action) => (a, b, c) => {
        try {
            return action(a, b, c);
        } catch (error) {
            throw isOurs(error) ? error : new GivenError('internal error');
        }
    };
    const [say, plan, unplan] = [guarded(print), guarded(arm), guarded(disarm)];

    const provide = (name, value) => defineProperty(global, name,
        {configurable: true, enumerable: false, writable: true, value});
    const onDemand = (object, name, get) => defineProperty(object, name, {
        configurable: true,
        enumerable: false,
        get() {
            const value = get();
            defineProperty(object, name, {configurable: true, enumerable: false, writable: true, value});
            return value;
        },
        set(value) {
            defineProperty(object, name, {configurable: true, enumerable: true, writable: true, value});
        },
    });

    const console = {};
    for (const name of ['log', 'warn', 'error', 'info', 'debug', 'dir', 'trace', 'table', 'assert', 'group', 'groupCollapsed',
        'groupEnd', 'count', 'countReset', 'time', 'timeEnd', 'timeLog', 'dirxml'])
        console[name] = (...values) => { say(name, values); };
    provide('console', console);
    provide('global', global);

    const list = names.split(',');
    for (let i = 0; i < list.length; i++) {
        const name = list[i];
        if (name !== 'console')
            onDemand(global, name, () => grant(name));
    }

    const fires = {__proto__: null};
    if (alone) {
        // These call back when the context's time is over, or are the way to the outer realm's objects.
        for (const [object, name] of [[global, 'FinalizationRegistry'], [global, 'WebAssembly'], [Atomics, 'waitAsync']]) {
            if (name in object) {
                const value = object[name];
                onDemand(object, name, () => { touch(); return value; });
            }
        }
        const {for: symbolFor} = Symbol;
        const custom = symbolFor('nodejs.util.inspect.custom');
        Symbol.for = {for(key) {
            const symbol = symbolFor(key);
            if (symbol === custom)
                touch();
            return symbol;
        }}.for;
        makeTimers();
    }

    function makeTimers() {
        const timers = new GivenMap();
        let last = 0;
        class Timeout {
            #id = ++last;
            #isReferenced = true;
            #delay;
            #run;
            #repeats;

            constructor(callback, delay, values, repeats) {
                if (typeof callback !== 'function')
                    throw new GivenTypeError('The "callback" argument must be of type function.');
                this.#delay = delay >= 1 && delay <= 2147483647 ? GivenNumber(delay) : 1;
                this.#repeats = repeats;
                this.#run = () => {
                    if (this.#repeats)
                        plan(this.#id, this.#delay, this.#isReferenced);
                    else
                        apply(mapDelete, timers, [this.#id]);
                    apply(callback, this, values);
                };
                this.#start();
            }

            #start() {
                apply(mapSet, timers, [this.#id, this.#run]);
                plan(this.#id, this.#delay, this.#isReferenced);
            }

            close() {
                apply(mapDelete, timers, [this.#id]);
                unplan(this.#id);
                return this;
            }

            refresh() {
                unplan(this.#id);
                this.#start();
                return this;
            }

            ref() { this.#isReferenced = true; return this; }

            unref() { this.#isReferenced = false; return this; }

            hasRef() { return this.#isReferenced; }

            [Symbol.toPrimitive]() { return this.#id; }

            static stop(timer) {
                if (typeof timer === 'object' && timer !== null && #id in timer)
                    timer.close();
                else if (typeof timer === 'number' || typeof timer === 'string') {
                    apply(mapDelete, timers, [+timer]);
                    unplan(+timer);
                }
            }
        }
        const {stop} = Timeout;
        delete Timeout.stop;
        const promisify = Symbol.for('nodejs.util.promisify.custom');
        const begin = (repeats) => (callback, delay, ...values) => new Timeout(callback, delay, values, repeats);
        const setTimeout = begin(false);
        const setImmediate = (callback, ...values) => new Timeout(callback, 0, values, false);
        defineProperty(setTimeout, promisify,
            {value: (delay, value) => new GivenPromise((resolve) => { setTimeout(resolve, delay, value); })});
        defineProperty(setImmediate, promisify,
            {value: (value) => new GivenPromise((resolve) => { setImmediate(resolve, value); })});
        provide('setTimeout', setTimeout);
        provide('setInterval', begin(true));
        provide('setImmediate', setImmediate);
        for (const name of ['clearTimeout', 'clearInterval', 'clearImmediate'])
            provide(name, stop);
        provide('queueMicrotask', (callback) => {
            if (typeof callback !== 'function')
                throw new GivenTypeError('The "callback" argument must be of type function.');
            apply(then, resolved, [() => { callback(); }]);
        });
        fires.now = (id) => {
            const run = apply(mapGet, timers, [id]);
            if (run)
                run();
        };
    }

    return {
        __proto__: null,
        fire: (id) => { fires.now(id); },
        setStdin: (text) => {
            try {
                provide('stdin', text);
            } catch {
                // The code of an earlier call has fixed it.
            }
        },
        watch: (promise, done, failed) => { apply(then, promise, [(value) => { done(value); }, (error) => { failed(error); }]); },
    };
};
