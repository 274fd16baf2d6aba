# Sourced by launch/quickstart and launch/test: makes .venv at the project's root and installs the lock file and the package
# into it. Quick when that is done already; an install that was interrupted is begun afresh. Sets `root` and `venv`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# True for a Python that really starts, is 3.11 to 3.14 (what the lock file was made for) and can make environments.
usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

find_python() {
    local name path
    if [ -n "${PYTHON:-}" ]; then
        usable "$PYTHON" || die "PYTHON=$PYTHON is no Python 3.11 to 3.14 with the venv module; unset it or name another"
        printf '%s\n' "$PYTHON"
        return
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        while IFS= read -r path; do
            case $path in "$venv"/*) continue ;; esac # an environment cannot be made from itself
            if usable "$path"; then printf '%s\n' "$path"; return; fi
        done < <(type -aP "$name" || true)
    done
    die "no Python 3.11 to 3.14 with the venv module was found on PATH; install one (on Debian: python3 and python3-venv)," \
        "or name it as PYTHON=/path/to/python"
}

# What the environment was made from: it is made anew where the project was moved, and brought up to date where this changes.
wanted() { printf '%s\n' "$root"; cksum <"$root/launch/requirements.lock"; cksum <"$root/setup.py"; }

# Reads pip's output, keeps it in a log, and shows how far it has got: one line that is redrawn, or a few where nobody watches.
show_progress() {
    local total=$1 log=$2 count=0 line name
    : >"$log"
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        case $line in
            Collecting\ * | Requirement\ already\ satisfied:*\(from\ -r*)
                count=$((count + 1))
                name=${line#Collecting }; name=${name#Requirement already satisfied: }; name=${name%%=*}
                if [ -t 2 ]; then
                    printf '\r      %3d of about %d: %-40.40s' "$count" "$total" "$name" >&2
                elif [ $((count % 25)) -eq 0 ]; then
                    say "      $count of about $total"
                fi ;;
            Installing\ collected\ packages*)
                if [ -t 2 ]; then printf '\r%-70s\r' '' >&2; fi
                say '      all here; unpacking' ;;
        esac
    done
}

install() {
    local python=$venv/bin/python log=$venv/install.log total
    total=$(grep -c '^[A-Za-z]' "$root/launch/requirements.lock")
    say "[2/2] installing the pinned packages (about 1.5 GB, a minute or two; log in .venv/install.log)"
    "$python" -m pip install --progress-bar off --disable-pip-version-check --require-hashes -r "$root/launch/requirements.lock" 2>&1 \
        | show_progress "$total" "$log" \
        || { tail -n 15 "$log" >&2; die "the install failed (above: the end of .venv/install.log); run the same command again"; }
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$root" >>"$log" 2>&1 \
        || { tail -n 15 "$log" >&2; die "installing the package itself failed (above: the end of .venv/install.log)"; }
}

# True where the environment is whole, was made here, and from what is wanted now.
ready() { [ ! -e "$begun" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(wanted)" ] && usable "$venv/bin/python"; }

# True where the environment can be brought up to date; one that was left half installed, or was moved here, cannot.
repairable() {
    [ ! -e "$begun" ] && usable "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1 \
        && { [ ! -e "$stamp" ] || [ "$(head -n 1 "$stamp")" = "$root" ]; }
}

set_up() {
    local stamp=$venv/.installed begun=$venv/.installing python
    if ready; then return; fi
    if command -v flock >/dev/null; then # two commands started together take turns
        exec 9>"$root/.launch.lock"
        flock 9
        if ready; then exec 9>&-; return; fi
    fi
    if repairable; then
        say "[1/2] bringing $venv up to date"
    else
        python=$(find_python)
        say "[1/2] making $venv with $("$python" --version 2>&1) ($python)"
        "$python" -m venv --clear "$venv" || die "$python could not make $venv (above: why)"
    fi
    rm -f "$stamp"
    : >"$begun"
    install
    wanted >"$stamp"
    rm -f "$begun"
    exec 9>&-
}
