# Sourced by the build scripts: build again only when an input changed.
#
#   fresh  INPUT...   succeeds when the last build saw exactly these files
#   sealed INPUT...   remembers them, after a successful build
#   need   TOOL HINT  ends the script with a clear word when TOOL is missing
#
# The stamp lies in the folder of the script, and holds a hash of names and contents.

stamp=.stamp-build

hash_of() {
  find "$@" \( -name node_modules -o -name dist -o -name gen -o -name bin -o -name .venv -o -name __pycache__ \) -prune \
    -o -type f ! -name '.stamp*' ! -name '.lock*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
}

fresh() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(hash_of "$@")" ]; }

sealed() { hash_of "$@" >"$stamp"; }

need() {
  command -v "$1" >/dev/null && return
  echo "$(basename "$PWD"): $1 is missing; $2" >&2
  exit 1
}
