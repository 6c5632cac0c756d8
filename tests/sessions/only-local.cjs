// Preloaded into gateways: they listen on 127.0.0.1, and ask nobody else.
const net = require('node:net');

const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (first, ...rest) {
    if (typeof first === 'number')
        return listen.call(this, { port: first, host: '127.0.0.1' }, ...rest.filter((one) => typeof one === 'function'));
    return listen.call(this, first && typeof first === 'object' && 'port' in first ? { ...first, host: '127.0.0.1' } : first, ...rest);
};

const { fetch } = globalThis;
globalThis.fetch = async (input, options) => {
    const { hostname } = new URL(input.url ?? input);
    if (!['127.0.0.1', 'localhost'].includes(hostname))
        throw new TypeError(`fetch of ${hostname}: only 127.0.0.1 here`);
    return fetch(input, options);
};
