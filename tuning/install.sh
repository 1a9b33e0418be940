#!/bin/bash
# Installs what lies beside it: kernel settings, limits, the unit, a configuration. Says what it does, changes nothing
# twice, and takes it all back with --undo.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: tuning/install.sh [--dry-run] [--undo] [--prefix DIR]

  99-spillgate.conf   to /etc/sysctl.d, with what this host has where that is more, and sets it
  limits.conf         to /etc/security/limits.d/99-spillgate.conf
  spillgate.service   to /etc/systemd/system
  spillgate.toml      to /etc/spillgate, where there is none yet (without the file: what `spillgate config print` says)

  --dry-run     say what would be done, and do nothing
  --undo        remove what was installed, and set the kernel settings back to what they were before the first time;
                a configuration stays
  --prefix DIR  put everything below DIR; kernel settings are set in DIR/proc/sys, where there is one
                (DESTDIR in the environment means the same)

What was before is kept in /var/lib/spillgate/sysctl.before, until --undo.
TEXT
}

dry=
undo=
prefix=${DESTDIR:-}
while (($#)); do
  case $1 in
    --dry-run) dry=1 ;;
    --undo) undo=1 ;;
    --prefix)
      [[ $# -ge 2 ]] || { echo "install.sh: --prefix needs a directory" >&2; exit 2; }
      prefix=$2
      shift
      ;;
    --prefix=*) prefix=${1#--prefix=} ;;
    -h | --help) usage; exit 0 ;;
    *) echo "install.sh: $1 is unknown; see --help" >&2; exit 2 ;;
  esac
  shift
done
prefix=${prefix%/}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kernel=$prefix/proc/sys
sysctl_file=$prefix/etc/sysctl.d/99-spillgate.conf
limits_file=$prefix/etc/security/limits.d/99-spillgate.conf
unit_file=$prefix/etc/systemd/system/spillgate.service
config_file=$prefix/etc/spillgate/spillgate.toml
before_file=$prefix/var/lib/spillgate/sysctl.before

if [[ -z $prefix && -z $dry ]] && ((EUID != 0)); then
  echo "install.sh: run it as root, or with --dry-run to see what it would do" >&2
  exit 1
fi

say() { echo "${dry:+would }$*"; }

# Puts stdin into a file, if it is not the same already.
put() {
  local file=$1 new
  new=$(mktemp)
  cat >"$new"
  if cmp --silent "$new" "$file"; then
    rm -f "$new"
    echo "$file is as it should be"
    return
  fi
  say "write $file"
  if [[ -z $dry ]]; then
    mkdir -p "$(dirname "$file")"
    install --mode=644 "$new" "$file"
  fi
  rm -f "$new"
}

remove() {
  if [[ ! -e $1 ]]; then
    return
  fi
  say "remove $1"
  [[ -n $dry ]] || rm -f "$1"
}

# A kernel setting as it is, its numbers parted by one space; fails where there is none.
running() {
  local words
  { read -r -a words <"$kernel/${1//.//}"; } 2>/dev/null || return 1
  echo "${words[*]}"
}

# What it was before this installed anything: nothing, if that was never noted.
noted() {
  [[ -e $before_file ]] || return 0
  local name value
  while IFS='=' read -r name value; do
    if [[ $name == "$1" ]]; then
      echo "$value"
    fi
  done <"$before_file"
}

set_running() {
  local name=$1 value=$2
  if [[ $(running "$name") == "$value" ]]; then
    return
  fi
  say "set $name = $value (it is $(running "$name"))"
  if [[ -z $dry ]] && ! { echo "$value" >"$kernel/${name//.//}"; } 2>/dev/null; then
    echo "install.sh: the kernel does not take $name = $value here" >&2
    failed=1
  fi
}

# What a host is given that has $2 where $3 is wanted, of the setting $1: number by number the larger one, so that nothing
# is lowered, whoever raised it and when.
raised() {
  local name=$1 has wanted i
  read -r -a has <<<"$2"
  read -r -a wanted <<<"$3"
  case $name in
    net.ipv4.ip_local_port_range)
      echo "$((has[0] < wanted[0] ? has[0] : wanted[0])) $((has[1] > wanted[1] ? has[1] : wanted[1]))"
      return
      ;;
    net.ipv4.tcp_slow_start_after_idle)
      echo "$3"
      return
      ;;
  esac
  for i in "${!wanted[@]}"; do
    ((${has[i]:-0} < wanted[i])) || wanted[i]=${has[i]}
  done
  echo "${wanted[*]}"
}

# The sysctl file for this host, on stdout.
sysctls_for_here() {
  local line name value has
  while IFS= read -r line; do
    if [[ $line != [a-z]*' = '* ]]; then
      echo "$line"
      continue
    fi
    name=${line%% = *}
    value=${line#* = }
    if [[ ! -d $kernel ]]; then
      echo "$line"
    elif ! has=$(running "$name"); then
      echo "# $line   # this host has no such setting"
    else
      echo "$name = $(raised "$name" "$has" "$value")"
    fi
  done <"$here/99-spillgate.conf"
}

# Notes what is about to be changed, once.
note_before() {
  local name=$1 value
  [[ -z $(noted "$name") ]] || return 0
  value=$(running "$name")
  say "note $name = $value in $before_file"
  if [[ -z $dry ]]; then
    mkdir -p "$(dirname "$before_file")"
    echo "$name=$value" >>"$before_file"
  fi
}

install_sysctls() {
  local text line
  text=$(sysctls_for_here)
  if [[ -d $kernel ]]; then
    while IFS= read -r line; do
      if [[ $line == [a-z]*' = '* ]]; then
        note_before "${line%% = *}"
      fi
    done <<<"$text"
  fi
  put "$sysctl_file" <<<"$text"
  if [[ ! -d $kernel ]]; then
    echo "$kernel is not there: nothing is set now, but at the next boot"
    return
  fi
  while IFS= read -r line; do
    if [[ $line == [a-z]*' = '* ]]; then
      set_running "${line%% = *}" "${line#* = }"
    fi
  done <<<"$text"
}

install_config() {
  if [[ -e $config_file ]]; then
    echo "$config_file is there already, and stays"
  elif [[ -e $here/spillgate.toml ]]; then
    put "$config_file" <"$here/spillgate.toml"
  elif command -v spillgate >/dev/null; then
    local text
    text=$(env -i PATH="$PATH" spillgate config print)
    put "$config_file" <<<"$text"
  else
    echo "no configuration is written: \`spillgate\` is not installed (later: spillgate config print > $config_file)"
  fi
}

# systemd is told only of this host's own units, and only where it runs.
tell_systemd() {
  if [[ -z $prefix && -d /run/systemd/system ]]; then
    say "tell systemd (systemctl daemon-reload)"
    [[ -n $dry ]] || systemctl daemon-reload
  fi
}

failed=
if [[ -n $undo ]]; then
  if [[ -e $before_file ]]; then
    while IFS='=' read -r name value; do
      if running "$name" >/dev/null; then
        set_running "$name" "$value"
      fi
    done <"$before_file"
  fi
  # A value that could not be set back stays noted, for another try.
  [[ -n $failed ]] || remove "$before_file"
  remove "$sysctl_file"
  remove "$limits_file"
  if [[ -e $unit_file ]]; then
    remove "$unit_file"
    tell_systemd
  fi
  if [[ -e $config_file ]]; then
    echo "$config_file stays"
  fi
else
  if [[ -e $here/99-spillgate.conf ]]; then
    install_sysctls
  fi
  if [[ -e $here/limits.conf ]]; then
    put "$limits_file" <"$here/limits.conf"
  fi
  if [[ -e $here/spillgate.service ]]; then
    put "$unit_file" <"$here/spillgate.service"
    tell_systemd
  fi
  install_config
fi
[[ -z $failed ]]
