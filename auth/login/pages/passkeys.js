// Passkeys (W3C WebAuthn). The only script of our pages: they load nothing else.
//
// A form with `data-passkey` is shown when this browser can do what it is for. Sent, it first gets
// options from where it goes to, has the authenticator answer, and is then sent as a plain form.
"use strict";
(() => {
  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (each) => each.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer)))
      .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const named = (list) => (list || []).map((each) => ({ ...each, id: bytes(each.id) }));

  const ceremonies = {
    async get(options) {
      const publicKey = {
        ...options,
        challenge: bytes(options.challenge),
        allowCredentials: named(options.allowCredentials),
      };
      const { response, ...shown } = parts(await navigator.credentials.get({ publicKey }));
      return {
        ...shown,
        response: {
          clientDataJSON: text(response.clientDataJSON),
          authenticatorData: text(response.authenticatorData),
          signature: text(response.signature),
          userHandle: response.userHandle ? text(response.userHandle) : null,
        },
      };
    },
    async create(options) {
      const publicKey = {
        ...options,
        challenge: bytes(options.challenge),
        user: { ...options.user, id: bytes(options.user.id) },
        excludeCredentials: named(options.excludeCredentials),
      };
      const { response, ...made } = parts(await navigator.credentials.create({ publicKey }));
      return {
        ...made,
        response: {
          clientDataJSON: text(response.clientDataJSON),
          attestationObject: text(response.attestationObject),
          transports: response.getTransports ? response.getTransports() : [],
        },
      };
    },
  };
  const parts = ({ id, rawId, type, response }) => ({ id, rawId: text(rawId), type, response });

  const optionsFor = async (form) => {
    const body = new URLSearchParams({ challenge: "1", token: form.elements.token.value });
    const answer = await fetch(form.action, {
      method: "POST", body, headers: { Accept: "application/json" }, redirect: "error",
    });
    if (answer.ok) return answer.json();
    // Signed out, or too long ago: the page knows what to do.
    if (answer.status < 429) location.reload();
    throw new Error(String(answer.status));
  };

  const send = async (form) => {
    const faults = [...form.querySelectorAll("[data-fault]")];
    faults.forEach((each) => { each.hidden = true; });
    try {
      const told = await ceremonies[form.dataset.passkey](await optionsFor(form));
      form.elements.credential.value = JSON.stringify(told);
    } catch (error) {
      const fault = faults.find((each) => each.dataset.fault === error.name) || faults[0];
      fault.hidden = false;
      return;
    }
    form.submit();
  };

  const supported = Boolean(window.PublicKeyCredential && navigator.credentials);
  for (const each of document.querySelectorAll("[data-passkey-unsupported]")) each.hidden = supported;
  if (!supported) return;
  for (const form of document.querySelectorAll("form[data-passkey]")) {
    form.hidden = false;
    let busy = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (busy) return;
      busy = true;
      send(form).finally(() => { busy = false; });
    });
  }
})();
