# Sourced by ./check and ./quickstart. Sets `root`, `bazel_startup` and
# `bazel_options`, with the place of Bazel's files and the number of its
# parallel jobs.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# Bazel needs a user and a writable home, which services and containers lack.
export USER="${USER:-$(id -un 2> /dev/null || id -u)}"
if [[ -z "${HOME:-}" ]]; then
  HOME="$(getent passwd "$(id -u)" | cut -d: -f6)" || HOME=""
  export HOME="${HOME:-/nonexistent}"
fi
bazel_startup=()
if ! mkdir -p "$HOME/.cache" 2> /dev/null || [[ ! -w "$HOME/.cache" ]]; then
  bazel_startup+=("--output_user_root=$root/out/bazel")
fi

# A gRPC translation unit takes up to 1 GiB to compile.
jobs="$(nproc)"
memory_jobs="$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)"
((jobs > memory_jobs && memory_jobs > 0)) && jobs="$memory_jobs"
bazel_options=("--jobs=$jobs" "--local_ram_resources=HOST_RAM*.8"
  "--color=no" "--curses=no" "--show_progress_rate_limit=15")

# run_bazel COMMAND ARGS...: Bazel in the root of the project.
run_bazel() {
  local command="$1"
  shift
  (cd "$root" && bazel "${bazel_startup[@]}" "$command" \
    "${bazel_options[@]}" "$@" < /dev/null)
}
