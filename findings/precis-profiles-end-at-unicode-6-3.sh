#!/usr/bin/env bash
# precis-profiles 0.2.0 refuses passwords with characters that are newer than Unicode 6.3 (2013).
#
# RFC 8265 gives passwords the profile OpaqueString, which precis-profiles implements. The profile allows any assigned
# letter, but a letter of a later Unicode version is refused as unassigned: precis-core takes the class of a character
# from the tables of the IANA registry, and these tables end at Unicode 6.3. So a person cannot use a Chinese character of
# extension E (Unicode 8.0) or an Adlam letter (Unicode 9.0). A character of extension B (Unicode 3.1) is taken.
#
# Seen with precis-profiles 0.2.0, precis-core 0.2.0:
#   U+20000 taken
#   U+2B820 refused: BadCodepoint(CodepointInfo { cp: 178208, position: 0, property: Unassigned })
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
    for c in ['\u{20000}', '\u{2b820}', '\u{1e900}'] {
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
expected='U+20000 taken
U+2B820 refused: BadCodepoint(CodepointInfo { cp: 178208, position: 0, property: Unassigned })
U+1E900 refused: BadCodepoint(CodepointInfo { cp: 125184, position: 0, property: Unassigned })'
[ "$seen" = "$expected" ] || { echo "changed"; exit 1; }
