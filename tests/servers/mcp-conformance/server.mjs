// Runs the command line of MCP's conformance suite: `node server.mjs list --client`.
// Its servers listen on 127.0.0.1 only.

import { once } from 'node:events';
import fs from 'node:fs';
import { register } from 'node:module';
import { createServer, Server } from 'node:net';

// The suite names no host, so it would listen on all interfaces, and asks for the port at once. So
// its servers get sockets that are open already.
const sockets = await Promise.all(Array.from({ length: 4 }, async () => {
  const socket = createServer().listen(0, '127.0.0.1').unref();
  await once(socket, 'listening');
  return socket;
}));
const { listen } = Server.prototype;
Server.prototype.listen = function listenOnLoopback(port, ...rest) {
  if (port !== 0 || typeof rest[0] === 'string') throw new Error('a server without port and host is expected');
  return listen.call(this, sockets.pop(), ...rest).ref();
};

// Node 20 lacks a function that the suite imports, though only its report on repositories calls it.
if (!fs.globSync) {
  const source = "export * from 'node:fs'; export { default } from 'node:fs'; export const globSync = undefined;";
  const hooks = `export async function resolve(specifier, context, next) {
    const isSuite = context.parentURL?.endsWith('/conformance/dist/index.js');
    if (specifier !== 'fs' || !isSuite) return next(specifier, context);
    return { shortCircuit: true, url: ${JSON.stringify(`data:text/javascript,${encodeURIComponent(source)}`)} };
  }`;
  register(`data:text/javascript,${encodeURIComponent(hooks)}`);
}

await import('./node_modules/@modelcontextprotocol/conformance/dist/index.js');
