# Says the first thing that a set-up left where an archive of the workspace doesn't hold it; nothing when there is none.
# Runs in the workspace's root. $1: a file that was made before the set-up, which goes.
left() { rm -f "$1"; echo "$2"; exit; }

for folder in /proc/[0-9]*; do
    id=${folder#/proc/}
    # The agent, and this.
    if [ "$id" = 1 ] || [ "$id" = $$ ]; then continue; fi
    # What the engine has started beside it, such as a health check or a connection of the host's, has its parent outside.
    read -r state <"$folder/stat" && case ${state##*) } in ?" 0 "*) continue ;; esac
    read -r name <"$folder/comm" && left "$1" "set-up left the process $name running"
done 2>/dev/null

root=$PWD
cd || exit 1
# A home folder that is the workspace, or no folder of its own, says nothing.
if [ "$PWD" = "$root" ] || [ "$PWD" = / ]; then rm -f "$1"; exit; fi
[ -f "$1" ] && command -v find >/dev/null || exit 1
# What package managers keep for themselves is made anew where it is missing.
found=$(find . \( -path "./${root#"$PWD/"}" -o -path ./.cache -o -path ./.npm -o -path ./.yarn -o -path ./.pnpm-store \
    -o -path ./.local/share/pnpm -o -path ./.local/state -o -path ./.cargo/registry \) -prune \
    -o ! -path . ! -path ./.local ! -path ./.local/share ! -path ./.cargo -newer "$1" -print 2>/dev/null | head -n 1)
[ -z "$found" ] || left "$1" "set-up left $PWD/${found#./} outside of the workspace"
rm -f "$1"
