#!/usr/bin/env bash
# precis-profiles 0.2.0 refuses passwords with characters that are newer than Unicode 6.3 (2013).
#
# RFC 8265 gives passwords the profile OpaqueString. The crate implements that profile, and the README of its core says
# that precis-profiles "uses a more recent Unicode version to support a broader set of modern characters". A password
# of U+1F914 (thinking face, Unicode 8.0) or of U+1E900 (Adlam, Unicode 9.0) is refused as unassigned all the same: the
# class of characters comes from precis-core, whose tables are those of the IANA registry, which ends at 6.3.
# U+1F600 (grinning face, Unicode 6.1) is taken. A heart with U+FE0F and a joined emoji are refused by the RFC itself.
#
# Seen with precis-profiles 0.2.0, precis-core 0.2.0:
#   U+1F600 taken
#   U+1F914 refused: BadCodepoint(CodepointInfo { cp: 129300, position: 0, property: Unassigned })
#   U+1E900 refused: BadCodepoint(CodepointInfo { cp: 125184, position: 0, property: Unassigned })
#
# Needs cargo and crates.io. Exits 0 if it is still so, 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
precis-core = "=0.2.0"
precis-profiles = "=0.2.0"

[workspace]
TOML
cat > src/main.rs <<'RUST'
use precis_core::profile::PrecisFastInvocation;
use precis_profiles::OpaqueString;

fn main() {
    for c in ['\u{1f600}', '\u{1f914}', '\u{1e900}'] {
        let password: String = std::iter::repeat(c).take(8).collect();
        match OpaqueString::enforce(&*password) {
            Ok(_) => println!("U+{:04X} taken", u32::from(c)),
            Err(error) => println!("U+{:04X} refused: {error:?}", u32::from(c)),
        }
    }
}
RUST
seen=$(CARGO_TARGET_DIR="$folder/target" cargo run --quiet)
echo "$seen"
expected='U+1F600 taken
U+1F914 refused: BadCodepoint(CodepointInfo { cp: 129300, position: 0, property: Unassigned })
U+1E900 refused: BadCodepoint(CodepointInfo { cp: 125184, position: 0, property: Unassigned })'
[ "$seen" = "$expected" ] || { echo "changed"; exit 1; }
