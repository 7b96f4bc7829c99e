#!/usr/bin/env bash
# usage: scripts/deny.sh
# Checks the dependencies against deny.toml. Advisories need RustSec's database, a git repository. If it can neither be
# fetched nor found in the cache, they are skipped with a message.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
    cargo install --locked cargo-deny
fi
cargo deny check --hide-inclusion-graph bans licenses sources
if cargo deny fetch db 2>/dev/null; then
    cargo deny --offline check advisories
else
    echo "advisories not checked: cannot fetch RustSec's database" >&2
fi
