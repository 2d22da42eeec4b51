"""Who is calling, and may they.

Everything directly in this package is pure; `auth.io` talks to the store and to issuers;
`auth.login` is the bundled login service.
"""
