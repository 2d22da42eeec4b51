// An OpenID provider for the tests: the certified `oidc-provider`, with people who sign in by name.
//
//   node server.mjs MODULES CLIENTS [OPTIONS]
//
// MODULES is the directory with node_modules, CLIENTS a JSON list of registered clients, OPTIONS a
// JSON object: `lifetime` (seconds of access tokens), `delay` (at most so many ms until it deals with
// a request for tokens). Prints its issuer once it listens, and ends when its standard input does.
// `/heard` tells the status of each answer to its back-channel logouts, `/used` how often each
// refresh token has come; they are good for one use, and a second one ends the sign-in (RFC 9700).
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { once } from 'node:events';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, clients, given = '{}'] = process.argv.slice(2);
const { lifetime = 600, delay = 0 } = JSON.parse(given);
const resolve = createRequire(pathToFileURL(join(modules, 'package.json'))).resolve;
const { default: Provider } = await import(pathToFileURL(resolve('oidc-provider')));

const PEOPLE = {
  ada: { name: 'Ada Lovelace', email: 'ada@example.com', email_verified: true, roles: ['editor'], groups: ['maths'] },
  bob: { name: 'Bob', email: 'bob@example.com', email_verified: false, roles: [], groups: [] },
};

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const key = (type, options, rest) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), use: 'sig', ...rest,
});
const minutes = 60;
const heard = [];
const used = new Map();
const provider = new Provider(issuer, {
  clients: JSON.parse(clients),
  jwks: {
    keys: [
      key('rsa', { modulusLength: 2048 }, { kid: 'rsa', alg: 'RS256' }),
      key('ec', { namedCurve: 'P-256' }, { kid: 'ec', alg: 'ES256' }),
    ],
  },
  cookies: { keys: ['a key for the tests'] },
  claims: {
    openid: ['sub'], profile: ['name', 'roles', 'groups'], email: ['email', 'email_verified'],
  },
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256'] },
  features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true } },
  // On loopback, which the provider's own guard would refuse; and the test may ask what it heard.
  fetch: async (url, options) => {
    const response = await globalThis.fetch(url, { ...options, dispatcher: undefined });
    heard.push(response.status);
    return response;
  },
  pkce: { required: () => true },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...PEOPLE[id] }) }),
  issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  ttl: {
    RefreshToken: 60 * minutes, AccessToken: lifetime, AuthorizationCode: minutes, Grant: 60 * minutes,
    IdToken: 10 * minutes, Interaction: 10 * minutes, Session: 60 * minutes,
  },
});

const page = (title, fields) => `<!DOCTYPE html><html lang="en"><title>${title}</title>
<form method="post">${fields}<button type="submit">Continue</button></form></html>`;

async function interact(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (request.method === 'GET') {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    const field = '<label>Name <input name="name" autocomplete="username"></label>';
    response.end(page(prompt.name, prompt.name === 'login' ? field : ''));
    return;
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  const name = new URLSearchParams(body).get('name');
  let result;
  if (prompt.name === 'consent') {
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    result = { consent: { grantId: await grant.save() } };
  } else if (PEOPLE[name]) {
    result = { login: { accountId: name, amr: ['pwd'], acr: 'urn:example:password' } };
  } else {
    result = { error: 'access_denied', error_description: `nobody is called <${name}>` };
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

const answer = provider.callback();
server.on('request', async (request, response) => {
  if (request.url === '/used') return response.end(JSON.stringify([...used.values()]));
  if (request.url === '/token') await new Promise((go) => { setTimeout(go, Math.random() * delay); });
  if (request.url === '/heard') return response.end(JSON.stringify(heard.splice(0)));
  if (!request.url.startsWith('/interaction/')) return answer(request, response);
  return interact(request, response).catch((error) => {
    response.statusCode = 500;
    response.end(String(error));
  });
});
const count = ({ oidc }) => {
  const token = oidc.params?.grant_type === 'refresh_token' && oidc.params.refresh_token;
  if (token) used.set(token, (used.get(token) ?? 0) + 1);
};
provider.on('grant.success', count);
provider.on('grant.error', count);
provider.on('server_error', (_, error) => console.error(error));
provider.on('backchannel.error', (_, error) => console.error(error));
console.log(issuer);
process.stdin.on('end', () => process.exit(0)).resume();
