# Sourced by the build scripts: build again only when an input changed.
#
#   fresh  STAMP INPUT...   succeeds when the last build saw exactly these files
#   sealed STAMP INPUT...   remembers them, after a successful build
#   need   TOOL HINT        ends the script with a clear word when TOOL is missing
#
# A stamp holds a hash of names and contents. It lies in the folder of what was built, so
# that whoever removes that removes the stamp too.

hash_of() {
  find "$@" \( -name node_modules -o -name dist -o -name bin -o -name .venv -o -name __pycache__ \) -prune \
    -o -type f ! -name '.lock*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
}

fresh() { [ -f "$1" ] && [ "$(cat "$1")" = "$(hash_of "${@:2}")" ]; }

sealed() { hash_of "${@:2}" >"$1"; }

need() {
  command -v "$1" >/dev/null && return
  echo "$(basename "$PWD"): $1 is missing; $2" >&2
  exit 1
}
