#!/bin/sh
# Installs what lies beside it: kernel settings, limits, the program, its unit, a configuration. Says what it does, changes
# nothing twice, overwrites nobody's edits, and takes back with --undo what is still as it left it.
#
# For dash and bash. It may be interrupted anywhere: what is about to change is noted first, files are replaced whole, and
# another run (or --undo) goes on from there.
# shellcheck disable=SC3043  # `local`: dash and bash have it
set -eu

usage() {
  cat <<'TEXT'
Usage: tuning/install.sh [--dry-run] [--undo] [--force] [--sockets N] [--binary PATH] [--prefix DIR]

  99-spillgate.conf   to /etc/sysctl.d, with what this host has where that is more, and sets it
  limits.conf         to /etc/security/limits.d/99-spillgate.conf, without the lines of which this host allows more
  spillgate           the program, to /usr/local/bin: the one of --binary, or one that lies beside this script
  spillgate.service   to /etc/systemd/system, starting that program (else /usr/bin/spillgate, the package's)
  spillgate.toml      to /etc/spillgate, where there is none yet (without the file: what `spillgate config print` says,
                      commented out)

A file that somebody else wrote, or has changed since this installed it, stays; the new one is written beside it, as
FILE.spillgate-new. Nothing is enabled, started or restarted.

  --dry-run      say what would be done, and do nothing
  --undo         remove what was installed, and set the kernel settings back to what they were before the first time; but
                 only what is still as it was left: what was changed since is named, and stays. So does a configuration
  --force        replace changed files too; what was there is kept as FILE.before-spillgate, and --undo puts it back
  --sockets N    kernel settings for N sockets, as the program says (`spillgate doctor --sockets N`): the one of --binary, beside
                 this script or in PATH. Without: those for 1,000,000, but tcp_mem only where half of the memory holds it
  --binary PATH  the program to install
  --prefix DIR   put everything below DIR; kernel settings are set in DIR/proc/sys, where there is one
                 (DESTDIR in the environment means the same)

What was before and what was written is noted in /var/lib/spillgate, until --undo.
TEXT
}

wrong() {
  echo "install.sh: $*; see --help" >&2
  exit 2
}

# Takes the value of a flag. An empty one is a variable that is not set: as a prefix it would mean this host.
take() {
  case $2 in
    '') wrong "$1 is empty: a variable that is not set?" ;;
    -*) wrong "$1 needs a value, and not $2" ;;
  esac
  case $1 in
    --binary) binary=$2 ;;
    --prefix) prefix=$2 ;;
    --sockets) sockets=$2 ;;
  esac
}

dry='' undo='' force='' binary='' sockets=''
prefix=${DESTDIR:-}
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=1 ;;
    --undo) undo=1 ;;
    --force) force=1 ;;
    --binary | --prefix | --sockets)
      [ $# -ge 2 ] || wrong "$1 needs a value"
      take "$1" "$2"
      shift
      ;;
    --binary=* | --prefix=* | --sockets=*) take "${1%%=*}" "${1#*=}" ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) wrong "$1 is unknown" ;;
  esac
  shift
done
prefix=${prefix%/}
[ -z "$undo" ] || [ -z "$force$binary$sockets" ] || wrong '--undo goes with --dry-run and --prefix only'
case $sockets in
  '') ;;
  0* | *[!0-9]* | ??????????*) wrong "--sockets $sockets is no number from 1 to 999999999" ;;
esac

here=$(dirname "$(readlink -f "$0")") # it may be called by a link
kernel=$prefix/proc/sys
state=$prefix/var/lib/spillgate
before=$state/sysctl.before # name=value, as it was before the first time
set_to=$state/sysctl.set    # name=value, as it was set here; two of a name while one takes the other's place
installed=$state/installed  # checksum and path of each file that was written; two of a path likewise
# Below the prefix, as they are noted.
sysctl_file=/etc/sysctl.d/99-spillgate.conf
limits_file=/etc/security/limits.d/99-spillgate.conf
unit_file=/etc/systemd/system/spillgate.service
program_file=/usr/local/bin/spillgate
config_file=/etc/spillgate/spillgate.toml

if [ -z "$prefix$dry" ] && [ "$(id -u)" != 0 ]; then
  echo 'install.sh: run it as root, or with --dry-run to see what it would do' >&2
  exit 1
fi
if [ -z "$binary" ] && [ -f "$here/spillgate" ] && [ -x "$here/spillgate" ]; then
  binary=$here/spillgate
fi
# Whether $1 is a spillgate that runs here.
is_spillgate() { [ -n "$1" ] && timeout 10 env -i PATH="$PATH" "$1" --version </dev/null 2>/dev/null | grep -q '^spillgate '; }
if [ -n "$binary" ] && ! { [ -f "$binary" ] && [ -x "$binary" ]; }; then
  wrong "--binary $binary is no program"
fi
if [ -z "$undo" ]; then
  found=''
  for file in 99-spillgate.conf limits.conf spillgate.service; do
    [ ! -e "$here/$file" ] || found=1
  done
  if [ -z "$found" ] || [ ! -e "$here/host.sh" ]; then
    wrong "what it installs (99-spillgate.conf, limits.conf, spillgate.service, host.sh) does not lie beside it, in $here"
  fi
  if [ -n "$binary" ] && ! is_spillgate "$binary"; then
    wrong "$binary does not answer \`--version\` as spillgate does: it is another program, or does not run on this host"
  fi
  program=${binary:-$(command -v spillgate || :)}
  is_spillgate "$program" || program=''
  [ -z "$sockets" ] || [ -n "$program" ] || wrong '--sockets asks the program, and there is none: give it by --binary PATH'
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
failed=''

say() { echo "${dry:+would }$*"; }
complain() {
  echo "install.sh: $*" >&2
  failed=1
}
is_there() { [ -e "$1" ] || [ -L "$1" ]; }

# Takes the lines that match $2 out of the notes $1 and adds the line $3 (none if empty), at once or not at all.
renote() {
  [ -z "$dry" ] || return 0
  mkdir -p "$state"
  {
    [ ! -e "$1" ] || grep -vE "$2" "$1" || :
    [ -z "$3" ] || echo "$3"
  } >"$1.tmp"
  mv "$1.tmp" "$1"
}

# The lines of the notes $1 that match $2.
noted() { [ ! -e "$1" ] || grep -E "$2" "$1" || :; }

checksum() { sha256sum <"$1" | cut -d ' ' -f 1; }
# A name or a path as a pattern.
literally() { echo "$1" | sed 's/[.]/[.]/g'; }

# Whether the file at $1 is one that this script wrote, and nobody has changed it.
is_ours() {
  [ -f "$prefix$1" ] && [ ! -L "$prefix$1" ] &&
    [ -n "$(noted "$installed" "^$(checksum "$prefix$1")  $(literally "$1")\$")" ]
}

# Puts the file $2 at $1, with the mode $3, unless somebody else's is there.
put() {
  local file="$prefix$1" new="$2" mode="$3" sum
  if is_there "$file" && cmp -s "$new" "$file"; then
    echo "$file is as it should be"
  elif is_there "$file" && [ -z "$force" ] && ! is_ours "$1"; then
    if [ -n "$(noted "$installed" "  $(literally "$1")\$")" ]; then
      echo "$file was changed since it was installed, and stays (--force replaces it)"
    else
      echo "$file is there already, not from here, and stays (--force replaces it)"
    fi
    cmp -s "$new" "$file.spillgate-new" || say "write $file.spillgate-new, to compare"
    [ -n "$dry" ] || install -m "$mode" "$new" "$file.spillgate-new"
    return
  else
    if is_there "$file" && ! is_ours "$1"; then
      say "keep what is there as $file.before-spillgate"
      [ -n "$dry" ] || mv --backup=numbered "$file" "$file.before-spillgate"
    fi
    if [ -z "$dry" ]; then
      sum=$(checksum "$new")
      renote "$installed" "^$sum  $(literally "$1")\$" "$sum  $1"
    fi
    replace "$file" "$new" "$mode"
    if [ -z "$dry" ]; then
      renote "$installed" "  $(literally "$1")\$" "$sum  $1"
    fi
  fi
  remove "$1.spillgate-new"
}

# Puts $2 in the place of $1, with the mode $3; until it is whole, under a name that sysctl, PAM and systemd do not read.
replace() {
  say "write $1"
  [ -z "$dry" ] || return 0
  mkdir -p "$(dirname "$1")"
  install -m "$3" "$2" "$1.spillgate-tmp"
  mv "$1.spillgate-tmp" "$1"
}

remove() {
  is_there "$prefix$1" || return 0
  say "remove $prefix$1"
  [ -n "$dry" ] || rm -f "$prefix$1"
}

# Takes a file back, if it is as it was left.
take_back() {
  local file="$prefix$1"
  remove "$1.spillgate-new"
  remove "$1.spillgate-tmp"
  if is_ours "$1"; then
    remove "$1"
  elif is_there "$file" && [ -n "$(noted "$installed" "  $(literally "$1")\$")" ]; then
    echo "$file was changed since it was installed, and stays${2:+: $2}"
  elif is_there "$file"; then
    echo "$file is not from here, and stays"
  fi
  if is_there "$file.before-spillgate"; then
    # In a dry run ours is still there.
    if is_there "$file" && { [ -z "$dry" ] || ! is_ours "$1"; }; then
      echo "$file.before-spillgate stays beside it"
    else
      say "put $file.before-spillgate back"
      [ -n "$dry" ] || mv "$file.before-spillgate" "$file"
    fi
  fi
  if [ -e "$installed" ]; then
    renote "$installed" "  $(literally "$1")\$" ''
  fi
}

# Where the kernel has a setting.
kernel_file() { echo "$kernel/$(echo "$1" | tr . /)"; }

# A kernel setting as it is, its numbers parted by one space; fails where there is none.
running() {
  local file words
  file=$(kernel_file "$1")
  [ -r "$file" ] || return 1
  words=$(tr -s ' \t\n' ' ' <"$file") || return 1
  echo "${words% }"
}

# Sets a kernel setting; fails, with a word why, where it cannot be set.
set_running() {
  local file
  file=$(kernel_file "$1")
  say "set $1 = $2 (it is $(running "$1"))"
  [ -z "$dry" ] || return 0
  if [ ! -w "$file" ]; then
    complain "$1 cannot be set here: $file is read-only (a container? set it on the host, or by the engine's --sysctl)"
    return 1
  fi
  if ! { echo "$2" >"$file"; } 2>/dev/null || [ "$(running "$1")" != "$2" ]; then
    complain "the kernel does not take $1 = $2 here"
    return 1
  fi
}

if [ -z "$undo" ]; then
  # shellcheck source=tuning/host.sh disable=SC1091  # it is checked by itself
  . "$here/host.sh"
fi

# Notes a kernel setting as it is, once, and then sets it.
change_running() {
  local name="$1" value="$2" has pattern
  has=$(running "$name")
  [ "$has" != "$value" ] || return 0
  pattern="^$(literally "$name")="
  if [ -z "$(noted "$before" "$pattern")" ]; then
    renote "$before" "$pattern" "$name=$has"
  fi
  renote "$set_to" "^$(literally "$name")=$value\$" "$name=$value"
  if set_running "$name" "$value"; then
    renote "$set_to" "$pattern" "$name=$value"
  fi
}

install_sysctls() {
  local line
  want_sysctls
  sysctls_for_here >"$scratch/sysctl"
  tell_left_out "$scratch/sysctl"
  put "$sysctl_file" "$scratch/sysctl" 644
  grep -E '^[a-z].* = ' "$scratch/sysctl" >"$scratch/settings" || :
  warn_of_later
  if [ ! -d "$kernel" ]; then
    echo "$kernel is not there: nothing is set now, but at the next boot"
    return
  fi
  while IFS= read -r line; do
    change_running "${line%% = *}" "${line#* = }"
  done <"$scratch/settings"
}

# Sets back what is still as it was set here.
undo_sysctls() {
  local name value has pattern
  [ -e "$before" ] || return 0
  cp "$before" "$scratch/before"
  while IFS='=' read -r name value; do
    has=$(running "$name") || continue
    pattern="^$(literally "$name")="
    if [ "$has" != "$value" ]; then
      if [ -z "$(noted "$set_to" "$pattern$has\$")" ]; then
        echo "$name = $has was changed since it was set, and stays (it was $value before)"
      elif ! set_running "$name" "$value"; then
        continue # stays noted, for another try
      fi
    fi
    renote "$before" "$pattern" ''
    renote "$set_to" "$pattern" ''
  done <"$scratch/before"
}

# What the unit is to start; nothing where there is no program. One that was installed from here stays the one.
program_of_unit() {
  if [ -n "$binary" ] || is_ours "$program_file"; then
    echo "$program_file"
  elif is_there "$prefix/usr/bin/spillgate"; then
    echo /usr/bin/spillgate
  elif is_there "$prefix$program_file"; then
    echo "$program_file"
  fi
}

install_unit() {
  local program
  program=$(program_of_unit)
  if [ -z "$program" ]; then
    echo 'missing: /usr/bin/spillgate, which the unit starts (mend: --binary PATH here, or the Debian package)'
  fi
  sed "s|^ExecStart=/usr/bin/spillgate |ExecStart=${program:-/usr/bin/spillgate} |" "$here/spillgate.service" >"$scratch/unit"
  put "$unit_file" "$scratch/unit" 644
  tell_systemd
}

install_config() {
  local file="$prefix$config_file"
  if is_there "$file"; then
    echo "$file is there already, and stays"
    return
  fi
  if [ -e "$here/spillgate.toml" ]; then
    cp "$here/spillgate.toml" "$scratch/config"
  elif [ -n "$program" ]; then
    # Commented out: a default that changes with an upgrade holds for whoever did not set it.
    env -i PATH="$PATH" "$program" config print >"$scratch/settings" || {
      complain "$program does not print its settings: $file is not written"
      return
    }
    sed -E 's/^([a-z_]+ = )/# \1/' "$scratch/settings" >"$scratch/config"
  else
    echo "missing: $file, without which the unit does not start (later: spillgate config print >$file)"
    return
  fi
  replace "$file" "$scratch/config" 644
}

has_systemd() { [ -z "$prefix" ] && [ -d /run/systemd/system ]; }

# systemd is told only of this host's own units, and only where it runs.
tell_systemd() {
  has_systemd || return 0
  say 'tell systemd (systemctl daemon-reload)'
  [ -n "$dry" ] || systemctl daemon-reload || complain 'systemd does not reload its units (systemctl daemon-reload)'
}

# One run at a time: the notes are one run's.
lock() {
  [ -z "$dry" ] && command -v flock >/dev/null || return 0
  exec 9<"$state"
  flock --nonblock 9 || {
    echo "install.sh: another run of it is at work (it holds $state)" >&2
    exit 1
  }
}

undo_all() {
  if [ -d "$state" ]; then
    lock
    undo_sysctls
  fi
  take_back "$sysctl_file" 'what it says is set again at the next boot'
  take_back "$limits_file"
  if has_systemd && is_ours "$unit_file" &&
    { systemctl --quiet is-active spillgate.service || systemctl --quiet is-enabled spillgate.service; } 2>/dev/null; then
    complain 'the service runs or is enabled: its unit and program stay (systemctl disable --now spillgate, then again)'
  else
    if is_ours "$unit_file"; then
      take_back "$unit_file"
      tell_systemd
    else
      take_back "$unit_file"
    fi
    take_back "$program_file"
  fi
  remove "$config_file.spillgate-tmp"
  if is_there "$prefix$config_file"; then
    echo "$prefix$config_file stays"
  fi
  # What could not be set back stays noted.
  if [ -z "$failed$dry" ] && [ -d "$state" ]; then
    rm -f "$before" "$set_to" "$installed" "$state"/*.tmp
    rmdir "$state" 2>/dev/null || :
  fi
}

install_all() {
  if [ -z "$dry" ]; then
    mkdir -p "$state"
    lock
  fi
  if [ -e "$here/99-spillgate.conf" ] || [ -n "$sockets" ]; then
    install_sysctls
  else
    echo "missing: $here/99-spillgate.conf: no kernel settings"
  fi
  if [ -e "$here/limits.conf" ]; then
    limits_for_here >"$scratch/limits"
    tell_left_out "$scratch/limits"
    put "$limits_file" "$scratch/limits" 644
  else
    echo "missing: $here/limits.conf: no limits"
  fi
  if [ -n "$binary" ]; then
    put "$program_file" "$binary" 755
  fi
  if [ -e "$here/spillgate.service" ]; then
    install_unit
  fi
  install_config
}

if [ -n "$undo" ]; then
  undo_all
else
  install_all
fi
[ -z "$failed" ]
