"""Sessions in the store, the coherent cache, and the keys of issuers fetched over HTTP."""
