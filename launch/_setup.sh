# Sourced by launch/quickstart and launch/test: makes .venv at the project's root and installs the lock file and the package
# into it (set_up), and .venv-oracle with PyTorch over it (set_up_oracle). Quick when that is done already; an install that was
# interrupted is begun afresh. Sets `root`, `venv` and `oracle`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
oracle=$root/.venv-oracle
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
            case $path in "$venv"/* | "$oracle"/*) continue ;; esac # an environment cannot be made from itself
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

# True where the environment `folder` is whole, was made here, and from what is `wanted` now.
ready() { [ ! -e "$begun" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$("$wanted")" ] && usable "$folder/bin/python"; }

# True where the environment can be brought up to date; one that was left half installed, or was moved here, cannot.
repairable() {
    [ ! -e "$begun" ] && usable "$folder/bin/python" && "$folder/bin/python" -m pip --version >/dev/null 2>&1 \
        && { [ ! -e "$stamp" ] || [ "$(head -n 1 "$stamp")" = "$root" ]; }
}

# once FOLDER WANTED MAKE: calls MAKE unless the environment FOLDER holds what WANTED prints. `begun` stands while it is made.
once() {
    local folder=$1 wanted=$2 make=$3
    local stamp=$folder/.installed begun=$folder/.installing
    if ready; then return; fi
    if command -v flock >/dev/null; then # two commands started together take turns
        exec 9>"$root/.launch.lock"
        flock 9
        if ready; then exec 9>&-; return; fi
    fi
    "$make"
    "$wanted" >"$stamp"
    rm -f "$begun"
    exec 9>&-
}

make_venv() {
    local python
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
}

set_up() { once "$venv" wanted make_venv; }

# The other implementations that the oracle tests compare with. The Python is that of .venv, whose packages lie behind.
wanted_oracle() {
    printf '%s\n' "$root"
    "$venv/bin/python" --version 2>&1
    cksum <"$root/launch/requirements.lock"
    cksum <"$root/launch/requirements-oracle.txt"
}

make_oracle() {
    local python=$oracle/bin/python log=$oracle/install.log needs=$root/launch/requirements-oracle.txt torch
    say "[1/2] making $oracle with $("$venv/bin/python" --version 2>&1)"
    "$venv/bin/python" -m venv --clear "$oracle" || die "$venv/bin/python could not make $oracle (above: why)"
    : >"$begun"
    # A .pth file's folders come behind the environment's own packages; .venv's own .pth files are not read, hence the root.
    printf '%s\n' "$(packages_of "$venv/bin/python")" "$root" >"$(packages_of "$python")/venv.pth"
    torch=$(grep '^torch==' "$needs")
    say "[2/2] installing PyTorch, timm, transformers, Apache Beam and moto (about 1.3 GB, a minute; log in .venv-oracle/install.log)"
    : >"$log"
    pip_oracle --constraint "$needs" "$torch" || die_without_torch "$torch"
    pip_oracle --no-deps --requirement "$needs" || die_of_install
    "$python" -c 'import torch' >>"$log" 2>&1 || die_of_install
}

packages_of() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

pip_oracle() { "$python" -m pip install --progress-bar off --disable-pip-version-check "$@" >>"$log" 2>&1; }

die_of_install() {
    tail -n 15 "$log" >&2
    die "the install failed (above: the end of .venv-oracle/install.log); run the same command again"
}

die_without_torch() {
    # pip says the same where it reaches no network, but only after it has tried again.
    if grep -q "No matching distribution found for $1" "$log" && ! grep -q 'Retrying (' "$log"; then
        die "pip finds no build of $1 for $("$python" --version 2>&1) on this machine, and the oracle tests compare with it;" \
            "remove .venv and .venv-oracle and name a Python that has one as PYTHON=/path/to/python"
    fi
    die_of_install
}

set_up_oracle() { set_up; once "$oracle" wanted_oracle make_oracle; }
