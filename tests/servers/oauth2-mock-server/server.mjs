// Authorization server (oauth2-mock-server) with forced responses, and protected API, for the tests.
// Prints one JSON line with the URLs, then runs until stdin closes or SIGTERM.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { OAuth2Server } from 'oauth2-mock-server';

// stdout is reserved for the JSON line.
console.log = console.info = console.error;

const KEY = { kid: 'signing-key' };
// Claims as real servers add them, which make a token about 1 kB long.
const PERMISSIONS = ['accounts', 'invoices', 'payments', 'reports', 'transactions', 'users'].flatMap(
  (what) => [`${what}:read`, `${what}:write`]);
const INSTRUCTIONS = ['times', 'status', 'headers', 'body', 'empty', 'merge', 'omit', 'life'];

// Forced responses and counters by client id, so that any number of tests can share one server.
const clients = new Map();
function clientOf(id) {
  if (!clients.has(id)) {
    clients.set(id, {
      forced: undefined,
      stats: { token_requests: 0, token_requests_basic: 0, api_requests: 0, api_unauthorized: 0 },
    });
  }
  return clients.get(id);
}

// Ids and secrets of these tests need no percent-encoding.
function clientId(req) {
  const basic = /^basic +(.*)$/i.exec(req.headers.authorization ?? '')?.[1];
  return basic === undefined ? req.body.client_id : Buffer.from(basic, 'base64').toString().split(':')[0];
}

// Takes the instruction for one token request.
function nextForced(client) {
  const { forced } = client;
  if (forced?.times === undefined) return forced ?? {};
  forced.times -= 1;
  if (forced.times <= 0) client.forced = undefined;
  return forced;
}

function hook(service) {
  const instructions = new WeakMap();
  // The first hook that the library calls for a token request.
  service.on('beforeTokenSigning', ({ payload }, req) => {
    const id = clientId(req);
    const client = clientOf(id);
    client.stats.token_requests += 1;
    if (req.headers.authorization !== undefined) client.stats.token_requests_basic += 1;
    const forced = nextForced(client);
    instructions.set(req, forced);
    // Without a unique id, two tokens of the same second would be equal.
    Object.assign(payload, { jti: randomUUID(), client_id: id, permissions: PERMISSIONS });
    if (forced.life !== undefined) payload.exp = payload.iat + forced.life;
  });
  service.on('beforeResponse', (response, req) => {
    const { status, headers, body, empty, merge, omit = [] } = instructions.get(req);
    if (status !== undefined) response.statusCode = status;
    if (body !== undefined) response.body = body;
    // The library passes it to `res.json`, which sends nothing for it.
    if (empty) response.body = undefined;
    if (merge !== undefined) Object.assign(response.body, merge);
    for (const name of omit) delete response.body[name];
    // The hook has no headers, but its request is Express's, which refers to the response.
    if (headers !== undefined) req.res.set(headers);
  });
}

function send(res, status, body, headers = {}) {
  res.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store', ...headers });
  res.end(JSON.stringify(body));
}

async function control(server, req, res, [action, id]) {
  const body = await text(req);
  switch (`${req.method} ${action}`) {
    case 'POST force': {
      const forced = JSON.parse(body);
      const unknown = Object.keys(forced).filter((name) => !INSTRUCTIONS.includes(name));
      if (unknown.length > 0) return send(res, 400, { error: `no such instruction: ${unknown}` });
      clientOf(id).forced = forced;
      return send(res, 200, {});
    }
    case 'POST release':
      clientOf(id).forced = undefined;
      return send(res, 200, {});
    case 'GET stats':
      return send(res, 200, clientOf(id).stats);
    case 'POST rotate-key':
      // The store replaces a key by one of the same id.
      await server.issuer.keys.generate('RS256', KEY);
      return send(res, 200, {});
    default:
      return send(res, 404, { error: 'no such control request' });
  }
}

async function verified(server, token) {
  const keys = createLocalJWKSet({ keys: server.issuer.keys.toJSON() });
  try {
    return (await jwtVerify(token, keys, { issuer: server.issuer.url })).payload;
  } catch {
    return undefined;
  }
}

async function resource(server, req, res, [id]) {
  const { stats } = clientOf(id);
  stats.api_requests += 1;
  const token = /^Bearer +(.*)$/i.exec(req.headers.authorization ?? '')?.[1];
  const claims = token === undefined ? undefined : await verified(server, token);

  // The body is always read, so that a rejection never resets a connection in use.
  const body = await text(req);

  if (!claims) {
    stats.api_unauthorized += 1;
    return token === undefined
      ? send(res, 401, { ok: false }, { 'WWW-Authenticate': 'Bearer realm="api"' })
      : send(res, 401, { ok: false, error: 'invalid_token' },
        { 'WWW-Authenticate': 'Bearer realm="api", error="invalid_token"' });
  }
  return send(res, 200, { ok: true, client: claims.client_id, scope: claims.scope ?? null, body });
}

process.on('SIGTERM', () => process.exit(0));
process.stdin.on('end', () => process.exit(0)).on('close', () => process.exit(0)).resume();

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256', KEY);
hook(server.service);
// No idle timeout: a pooled connection must not be closed under a test that sleeps.
const apiServer = createServer({ keepAliveTimeout: 0 }, (req, res) => {
  const [first, ...rest] = req.url.slice(1).split('/');
  const handled = first === 'control' ? control(server, req, res, rest) : resource(server, req, res, [first]);
  handled.catch((err) => {
    console.error(err);
    res.destroy();
  });
});
apiServer.listen(0, '127.0.0.1');
await Promise.all([server.start(0, '127.0.0.1'), once(apiServer, 'listening')]);

const api_url = `http://127.0.0.1:${apiServer.address().port}`;
process.stdout.write(`${JSON.stringify({
  // Not with the issuer's name, `localhost`, which may resolve to [::1] first.
  token_url: `http://127.0.0.1:${server.address().port}/token`,
  api_url,
  control_url: `${api_url}/control`,
})}\n`);
