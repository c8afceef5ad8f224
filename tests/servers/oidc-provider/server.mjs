// Authorization server (oidc-provider) and protected API for the tests.
// Prints one JSON line with the URLs, then runs until stdin closes or SIGTERM.

import { createHash, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { parseArgs } from 'node:util';
import { jwtVerify } from 'jose'; // a dependency of oidc-provider
import { Provider, errors } from 'oidc-provider';

// stdout is reserved for the JSON line. console.info has only the library's advice on defaults.
console.log = console.error;
console.info = () => {};

const { values: { expiry } } = parseArgs({ options: { expiry: { type: 'string', default: 'exact' } } });
if (!['exact', 'provider'].includes(expiry)) throw new Error(`--expiry=${expiry}: use exact or provider`);

const SCOPES = ['tenant/42', 'tenant/43', 'tenant/7'];
const KNOWN_BUT_FORBIDDEN = 'tenant/99'; // known to the server, but allowed to no client
const RESOURCES = new Map([
  ['https://api.example.test/', SCOPES],
  ['urn:example:api', ['tenant/42', 'tenant/43']], // lacks one scope: its tokens get a narrower scope
]);
const SPECIAL_SECRET = 'p@ss:w%rd&=+ /';

const CLIENTS = [
  ['post-client', 'post-secret', 'client_secret_post'],
  ['basic-client', 'basic-secret', 'client_secret_basic'],
  ['special-post', SPECIAL_SECRET, 'client_secret_post'],
  ['special-basic', SPECIAL_SECRET, 'client_secret_basic'],
  ['short-client', 'short-secret', 'client_secret_post'],
  ['jwt-client', 'a-secret-of-at-least-32-bytes-for-a-mac', 'client_secret_jwt'],
];

// The clients of private_key_jwt, with one key per type that is made at start.
const KEYS = {
  rsa: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  p256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ed25519: generateKeyPairSync('ed25519'),
};
const KEY_CLIENTS = [
  ['rs256-client', 'RS256', 'rsa'],
  ['ps256-client', 'PS256', 'rsa'],
  ['es256-client', 'ES256', 'p256'],
  ['eddsa-client', 'EdDSA', 'ed25519'],
];

// The clients of the grants for users. The first has no secret.
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const USER_CLIENTS = [
  { client_id: 'public-app', token_endpoint_auth_method: 'none', grant_types: ['refresh_token'] },
  { client_id: 'web-app', client_secret: 'web-secret', grant_types: ['refresh_token', JWT_BEARER] },
  { client_id: 'exchanger', client_secret: 'exchanger-secret', grant_types: [TOKEN_EXCHANGE] },
];
// The clients of certificates (RFC 8705), with those in the folder `tests/keys/tls`.
const TLS_FOLDER = process.env.TEST_TLS_FOLDER ?? new URL('../../keys/tls', import.meta.url).pathname;
const pem = (name) => readFileSync(`${TLS_FOLDER}/${name}.pem`);
const selfSigned = [1, 2].map((number) => new X509Certificate(pem(`self-signed-${number}`)));
const selfSignedKeys = {
  keys: selfSigned.map(({ publicKey, raw }) => ({ ...publicKey.export({ format: 'jwk' }), x5c: [raw.toString('base64')] })),
};
const CERTIFICATE_CLIENTS = [
  { client_id: 'tls-client', token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_subject_dn: 'CN=client-1' },
  { client_id: 'self-signed-client', token_endpoint_auth_method: 'self_signed_tls_client_auth', jwks: selfSignedKeys },
  {
    client_id: 'bound-client', token_endpoint_auth_method: 'self_signed_tls_client_auth', jwks: selfSignedKeys,
    tls_client_certificate_bound_access_tokens: true,
  },
];
// The certificate of a connection, or undefined.
const certificateOf = (socket) => socket.getPeerX509Certificate?.();
const ASSERTION_ISSUER = 'https://users.example.test'; // its key is `p256`
const USER = 'user-7';

// A store of its own, because revoke-all must enumerate the tokens. Nothing is evicted,
// because the API checks the expiry itself and needs expired entries for that.
const stores = new Map();
class MapAdapter {
  constructor(model) {
    this.entries = new Map();
    stores.set(model, this.entries);
  }

  async upsert(id, payload) {
    this.entries.set(id, { payload, savedAtMs: Date.now() });
  }

  async find(id) {
    return this.entries.get(id)?.payload;
  }

  async destroy(id) {
    this.entries.delete(id);
  }

  async consume(id) {
    this.entries.get(id).payload.consumed = Math.floor(Date.now() / 1000);
  }

  async revokeByGrantId(grantId) {
    for (const [id, { payload }] of this.entries) {
      if (payload.grantId === grantId) this.entries.delete(id);
    }
  }
}
const TOKEN_MODELS = ['ClientCredentials', 'AccessToken'];
const storedTokens = (model) => stores.get(model) ?? new Map();

// A generated key avoids the warning about the built-in ones. EC keys are fast to generate.
const signingKey = () =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });

function makeProvider(issuer, mtlsUrl) {
  return new Provider(issuer, {
    adapter: MapAdapter,
    jwks: { keys: [signingKey()] },
    enabledJWA: {
      idTokenSigningAlgValues: ['ES256'],
      clientAuthSigningAlgValues: ['HS256', 'RS256', 'PS256', 'ES256', 'EdDSA'],
    },
    clientDefaults: {
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: 'ES256',
      scope: SCOPES.join(' '),
    },
    clients: [
      ...CLIENTS.map(([client_id, client_secret, token_endpoint_auth_method]) => ({
        client_id, client_secret, token_endpoint_auth_method,
      })),
      ...KEY_CLIENTS.map(([client_id, token_endpoint_auth_signing_alg, key]) => ({
        client_id,
        token_endpoint_auth_method: 'private_key_jwt',
        token_endpoint_auth_signing_alg,
        jwks: { keys: [{ ...KEYS[key].publicKey.export({ format: 'jwk' }), kid: key }] },
      })),
      ...USER_CLIENTS,
      ...CERTIFICATE_CLIENTS,
    ],
    discovery: { mtls_endpoint_aliases: { token_endpoint: `${mtlsUrl}/token` } },
    clockTolerance: 0, // the default adds 15 s to the lifetime of every token
    clientAuthMethods: [
      'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none',
      'tls_client_auth', 'self_signed_tls_client_auth',
    ],
    rotateRefreshToken: true,
    findAccount: (ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    scopes: [...SCOPES, KNOWN_BUT_FORBIDDEN, 'offline_access'], // the last one enables refresh tokens
    ttl: {
      ClientCredentials: (ctx, token, client) => (client.clientId === 'short-client' ? 5 : 900),
      AccessToken: 900,
      RefreshToken: 86_400,
      Grant: 86_400,
    },
    // By default the library ignores unknown scopes. The tests need the error that other
    // servers return, so a hook that runs for each token throws it.
    extraTokenClaims: (ctx) => {
      const unknown = ctx.oidc.body.scope?.split(' ').find((scope) => scope && !SCOPES.includes(scope));
      if (unknown !== undefined) throw new errors.InvalidScope('requested scope is unknown', unknown);
    },
    features: {
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        selfSignedTlsClientAuth: true,
        tlsClientAuth: true,
        getCertificate: (ctx) => certificateOf(ctx.socket),
        certificateAuthorized: (ctx) => ctx.socket.authorized,
        certificateSubjectMatches: (ctx, property, expected) =>
          property === 'tls_client_auth_subject_dn' && certificateOf(ctx.socket).subject === expected,
      },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => {
          const scopes = RESOURCES.get(resource);
          if (!scopes) throw new errors.InvalidTarget();
          return { scope: scopes.join(' '), audience: resource, accessTokenFormat: 'opaque' };
        },
      },
      devInteractions: { enabled: false },
    },
  });
}

// The library has neither of these grants, but a place for them. It authenticates the client, and
// checks that the client may use the grant; the checks of RFC 7523 and RFC 8693 are here.
function registerGrants(provider) {
  const respond = async (ctx, accountId, scope, members) => {
    const token = new provider.AccessToken({ accountId, client: ctx.oidc.client, scope });
    ctx.body = {
      access_token: await token.save(), token_type: 'Bearer', expires_in: token.expiration, scope, ...members,
    };
  };

  provider.registerGrantType(JWT_BEARER, async (ctx) => {
    const { assertion, scope } = ctx.oidc.params;
    const { payload: { iss, sub, jti, exp } } = await jwtVerify(assertion, KEYS.p256.publicKey, {
      algorithms: ['ES256'], issuer: ASSERTION_ISSUER, audience: provider.issuer, requiredClaims: ['sub', 'jti', 'exp'],
    }).catch((err) => { throw new errors.InvalidGrant(err.message); });
    const isFirst = await provider.ReplayDetection.unique(iss, jti, exp);
    if (!isFirst) throw new errors.InvalidGrant('the assertion was used before');
    await respond(ctx, sub, scope);
  }, ['assertion', 'scope']);

  provider.registerGrantType(TOKEN_EXCHANGE, async (ctx) => {
    const { subject_token, subject_token_type, scope } = ctx.oidc.params;
    const issued_token_type = 'urn:ietf:params:oauth:token-type:access_token';
    if (subject_token_type !== issued_token_type) throw new errors.InvalidRequest('unknown subject_token_type');
    const subject = subject_token && await provider.AccessToken.find(subject_token);
    if (!subject) throw new errors.InvalidRequest('the subject token is not valid');
    const beyond = scope?.split(' ').find((name) => !subject.scopes.has(name));
    if (beyond !== undefined) throw new errors.InvalidScope('the subject token lacks this scope', beyond);
    await respond(ctx, subject.accountId, scope ?? subject.scope, { issued_token_type });
  }, ['subject_token', 'subject_token_type', 'scope']);
}

// Returns a refresh token as a user's login would.
async function logIn(provider, clientId) {
  const client = await provider.Client.find(clientId);
  const scope = SCOPES.join(' ');
  const grant = new provider.Grant({ clientId, accountId: USER });
  grant.addOIDCScope(scope);
  const grantId = await grant.save();
  return new provider.RefreshToken({ client, accountId: USER, grantId, scope, gty: 'authorization_code' }).save();
}

const zeroes = () => ({
  token_requests: 0, token_responses_ok: 0, token_requests_basic: 0, token_requests_tls: 0, api_requests: 0, api_unauthorized: 0,
});
let stats = zeroes();
// The reason for the last error of the token endpoint, which its response does not tell.
let lastReason = null;

// The live token behind a bearer value, or undefined if unknown, revoked or expired.
// "exact": expired at the issue time plus the lifetime, in milliseconds.
// "provider": expired at `exp`, in whole seconds. As `exp` counts from the issue time
// rounded down, the lifetime is up to 1 s shorter than expires_in.
async function liveToken(provider, value) {
  const model = TOKEN_MODELS.find((name) => storedTokens(name).has(value));
  const token = model && await provider[model].find(value, { ignoreExpiration: expiry === 'exact' });
  if (!token || expiry === 'provider') return token;
  const endMs = storedTokens(model).get(value).savedAtMs + (token.exp - token.iat) * 1000;
  return Date.now() < endMs ? token : undefined;
}

async function revokeAll(provider) {
  let revoked = 0;
  for (const model of TOKEN_MODELS) {
    for (const id of [...storedTokens(model).keys()]) {
      const token = await provider[model].find(id, { ignoreExpiration: true });
      if (!token) continue;
      await token.destroy();
      revoked += 1;
    }
  }
  return revoked;
}

function send(res, status, body, headers = {}) {
  res.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store', ...headers });
  res.end(JSON.stringify(body));
}

const challenge = (error, description) => ({
  'WWW-Authenticate': 'Bearer realm="api"'
    + (error ? `, error="${error}", error_description="${description}"` : ''),
});

async function control(provider, req, res, path) {
  req.resume();
  const request = `${req.method} ${path}`;
  if (request === 'POST /control/revoke-all') return send(res, 200, { revoked: await revokeAll(provider) });
  if (request.startsWith('POST /control/login/')) {
    return send(res, 200, { refresh_token: await logIn(provider, path.split('/').at(-1)) });
  }
  if (request === 'GET /control/stats') return send(res, 200, stats);
  if (request === 'GET /control/last-reason') return send(res, 200, { reason: lastReason });
  if (request === 'POST /control/reset') return send(res, 200, stats = zeroes());
  return send(res, 404, { error: 'no such control request' });
}

async function resource(provider, req, res, path) {
  stats.api_requests += 1;
  // Checked on arrival, so that a slow body does not delay the check.
  const value = /^Bearer +(.*)$/i.exec(req.headers.authorization ?? '')?.[1];
  let token = value === undefined ? undefined : await liveToken(provider, value);
  const bound = token?.['x5t#S256'];
  if (bound) {
    const certificate = certificateOf(req.socket);
    const presented = certificate && createHash('sha256').update(certificate.raw).digest('base64url');
    if (bound !== presented) token = undefined;
  }

  // The body is always read, so that a rejection never resets a connection in use.
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of req) {
    hash.update(chunk);
    bytes += chunk.length;
  }

  if (!token) {
    stats.api_unauthorized += 1;
    return value === undefined
      ? send(res, 401, { ok: false }, challenge())
      : send(res, 401, { ok: false, error: 'invalid_token' }, challenge('invalid_token', 'The access token expired'));
  }
  if (path.startsWith('/admin')) {
    return send(res, 403, { ok: false, error: 'insufficient_scope' },
      challenge('insufficient_scope', 'The request requires higher privileges'));
  }
  return send(res, 200, {
    ok: true, client: token.clientId, user: token.accountId ?? null, scope: token.scope ?? null, aud: token.aud ?? null,
    method: req.method, path, body_bytes: bytes, body_sha256: hash.digest('hex'),
  });
}

async function listen(tls) {
  // No idle timeout: a pooled connection must not be closed under a test that sleeps.
  const options = { keepAliveTimeout: 0, ...tls };
  const server = tls ? createTlsServer(options) : createServer(options);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return [server, `${tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`];
}

process.on('SIGTERM', () => process.exit(0));
process.stdin.on('end', () => process.exit(0)).on('close', () => process.exit(0)).resume();

// The issuer URL contains the port, so the socket is opened before the provider is created.
// Any certificate may be presented, also one that the CA has not signed: the provider decides.
const tls = { key: pem('server'), cert: pem('server'), ca: pem('ca'), requestCert: true, rejectUnauthorized: false };
const [[authServer, issuer], [apiServer, api_url], [mtlsServer, mtls_url]] = await Promise.all([
  listen(), listen(), listen(tls),
]);
const provider = makeProvider(issuer, mtls_url);
registerGrants(provider);
const tokenPath = provider.pathFor('token');
provider.on('server_error', (ctx, err) => console.error(err));
provider.on('grant.error', (ctx, err) => {
  lastReason = [err.error_detail, err.cause?.message].filter(Boolean).join(': ') || err.message;
});
provider.use(async (ctx, next) => {
  if (ctx.method !== 'POST' || ctx.path !== tokenPath) return next();
  stats.token_requests += 1;
  if (/^basic /i.test(ctx.get('authorization'))) stats.token_requests_basic += 1;
  if (ctx.socket.encrypted) stats.token_requests_tls += 1;
  await next();
  if (ctx.status === 200) stats.token_responses_ok += 1;
});
authServer.on('request', provider.callback());
const api = (req, res) => {
  const path = req.url.split('?')[0];
  const handler = path.startsWith('/control/') ? control : resource;
  handler(provider, req, res, path).catch((err) => {
    console.error(err);
    res.destroy();
  });
};
apiServer.on('request', api);
// The same token endpoint and the same API, for connections with a certificate.
const withCertificate = provider.callback();
mtlsServer.on('request', (req, res) => (req.url === tokenPath ? withCertificate : api)(req, res));

process.stdout.write(`${JSON.stringify({
  issuer,
  token_url: provider.urlFor('token'),
  revocation_url: provider.urlFor('revocation'),
  introspection_url: provider.urlFor('introspection'),
  discovery_url: provider.urlFor('discovery'),
  keys: Object.fromEntries(Object.entries(KEYS).map(([name, { privateKey }]) => [
    name, privateKey.export({ type: 'pkcs8', format: 'pem' }),
  ])),
  api_url,
  mtls_url,
  control_url: `${api_url}/control`,
})}\n`);
