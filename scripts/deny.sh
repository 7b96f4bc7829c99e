#!/usr/bin/env bash
# usage: scripts/deny.sh
# Holds the dependencies to deny.toml. Advisories need RustSec's database, a git repository: where it cannot be fetched
# and no copy is kept, they are left out, and that is said.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    cargo install --locked cargo-deny
fi
cargo deny check --hide-inclusion-graph bans licenses sources
if cargo deny fetch db 2>/dev/null; then
    cargo deny --offline check advisories
else
    echo "advisories not checked: RustSec's database cannot be fetched from here" >&2
fi
