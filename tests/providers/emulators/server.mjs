// Emulators of services, each at a loopback port and under the service's own address.
// Argument 1: where `emulate` is installed. Argument 2: JSON, by service {port, baseUrl, seed}.
import { pathToFileURL } from "node:url";

const [modules, settings] = process.argv.slice(2);
const api = pathToFileURL(`${modules}/node_modules/emulate/dist/api.js`);
const { createEmulator } = await import(api);
for (const [service, { port, baseUrl, seed }] of Object.entries(JSON.parse(settings))) {
  await createEmulator({ service, port, baseUrl, seed: { [service]: seed } });
}
console.log("ready");
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
