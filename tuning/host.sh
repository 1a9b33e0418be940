# shellcheck shell=sh disable=SC2154,SC3043  # the names are install.sh's; `local`: dash and bash have it
# What install.sh asks the host before it writes: what is there already, and is not to be lowered. Read by it, not run.

# What a host is given that has $2 where $3 is wanted, of the setting $1: number by number the larger one, so that nothing
# is lowered, whoever raised it and when.
raised() {
  local name="$1" wanted="$3" result='' number has
  if [ "$name" = net.ipv4.tcp_slow_start_after_idle ]; then
    echo "$wanted"
    return
  fi
  # shellcheck disable=SC2086  # number by number
  set -- $2
  for number in $wanted; do
    has=${1:-$number}
    [ $# -eq 0 ] || shift
    if [ "$name" = net.ipv4.ip_local_port_range ] && [ -z "$result" ]; then
      [ "$has" -gt "$number" ] || number=$has # the first port: the lower one
    elif [ "$has" -gt "$number" ]; then
      number=$has
    fi
    result="$result${result:+ }$number"
  done
  echo "$result"
}

# The settings that are wanted, into $scratch/wanted: as shipped, or what the program says for that many sockets. Below a
# prefix it is asked for those of any host: what this one has is nothing to that one.
want_sysctls() {
  local guide=sysctl config="$prefix$config_file" why
  if [ -z "$sockets" ]; then
    cp "$here/99-spillgate.conf" "$scratch/wanted"
    return
  fi
  [ -z "$prefix" ] || guide=any-sysctl
  set -- doctor --sockets "$sockets" --guide "$guide"
  [ ! -e "$config" ] || set -- "$@" --config "$config"
  if ! env -i PATH="$PATH" "$program" "$@" >"$scratch/wanted" || ! grep -q '^net[.].* = ' "$scratch/wanted"; then
    echo "install.sh: $program does not say what $sockets sockets need; nothing was changed" >&2
    exit 1
  fi
  echo "kernel settings: for $sockets sockets, by $program"
  why=$(can_hold "$(sed -n 's/^net[.]ipv4[.]tcp_mem = //p' "$scratch/wanted")") ||
    echo "install.sh: warning: tcp_mem for $sockets sockets: $why" >&2
}

# Fails, with a word why, where tcp_mem = $1 is more than this host can mean: with a pressure (the second number, in pages)
# that its memory never reaches nobody is throttled before memory is out, and no alert fires.
can_hold() {
  local total pages
  total=$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' "$prefix/proc/meminfo" 2>/dev/null || :)
  pages=${1#* }
  pages=${pages%% *}
  if [ -z "$total" ]; then
    echo 'how much memory this host has is not known'
  elif [ $((${pages:-0} * $(getconf PAGESIZE) / 512)) -gt "$total" ]; then
    echo "pressure is more than half of this host's memory ($total kB)"
  else
    return 0
  fi
  return 1
}

# Tells which lines of the file $1 are left out, and why.
tell_left_out() { sed -n 's/^# \(.*\)   # \(.*\)$/left out: \1 (\2)/p' "$1"; }

# The sysctl file for this host, on stdout.
sysctls_for_here() {
  local line name has why
  while IFS= read -r line; do
    name=${line%% = *}
    case $line in
      [a-z]*' = '*)
        if [ "$name" = net.ipv4.tcp_mem ] && [ -z "$sockets" ] && ! why=$(can_hold "${line#* = }"); then
          echo "# $line   # $why: --sockets N says what N sockets need"
        elif [ ! -d "$kernel" ]; then
          echo "$line"
        elif ! has=$(running "$name"); then
          echo "# $line   # this host has no such setting"
        else
          echo "$name = $(raised "$name" "$has" "${line#* = }")"
        fi
        ;;
      *) echo "$line" ;;
    esac
  done <"$scratch/wanted"
}

# Warns of what is read after our file at boot, and sets a name of ours to less: the other files of sysctl.d by their names, of
# which the first directory has the say, then sysctl.conf.
warn_of_later() {
  local directory file name line value wanted number
  echo "/${sysctl_file##*/}//" >"$scratch/read"
  for directory in /etc /run /usr/local/lib /usr/lib /lib; do
    for file in "$prefix$directory"/sysctl.d/*.conf; do
      name=${file##*/}
      if is_there "$file" && ! grep -qF "/$name//" "$scratch/read"; then
        echo "/$name//$file" >>"$scratch/read"
      fi
    done
  done
  LC_ALL=C sort "$scratch/read" | sed -n '\|^/99-spillgate[.]conf//|,$ s|^/[^/]*//\(..*\)|\1|p' >"$scratch/later"
  echo "$prefix/etc/sysctl.conf" >>"$scratch/later"
  while IFS= read -r file; do
    # Debian's 99-sysctl.conf is a link to sysctl.conf, which comes anyhow.
    if [ ! -f "$file" ] || [ "$(readlink "$file")" = ../sysctl.conf ]; then continue; fi
    number=0
    while IFS= read -r line || [ -n "$line" ]; do
      number=$((number + 1))
      case $line in *=*) ;; *) continue ;; esac
      name=$(echo "${line%%=*}" | tr -d ' \t-' | tr / .)
      case $name in '' | *[!a-z0-9_.]*) continue ;; esac
      value=$(echo "${line#*=}" | tr -s ' \t' ' ' | sed 's/^ //; s/ $//')
      wanted=$(sed -n "s/^$(literally "$name") = //p" "$scratch/settings")
      if [ -n "$wanted" ] && [ "$(raised "$name" "$value" "$wanted" 2>/dev/null)" != "$value" ]; then
        echo "install.sh: warning: $file:$number sets $name = $value at boot, after ours ($wanted): take that line out" >&2
      fi
    done <"$file"
  done <"$scratch/later"
}

# Whether the limit $1 is more than $2.
is_more() {
  case $1 in
    unlimited | infinity | -1) return 0 ;;
    '' | *[!0-9]*) return 1 ;;
    *) [ "$1" -gt "$2" ] ;;
  esac
}

# Where more is allowed to $1 than $4, by a line of type $2 for the item $3: another file, or who runs this. Fails if nowhere.
allowed_already() {
  local file number line domain type item value what unit=1
  [ "$4" != unlimited ] || return 1
  for file in "$prefix/etc/security/limits.conf" "$prefix"/etc/security/limits.d/*.conf; do
    if [ ! -f "$file" ] || [ "$file" = "$prefix$limits_file" ]; then continue; fi
    number=0
    while IFS= read -r line || [ -n "$line" ]; do
      number=$((number + 1))
      read -r domain type item value <<TEXT
${line%%#*}
TEXT
      if [ "$domain $item" = "$1 $3" ] && { [ "$2" = - ] || [ "$type" != soft ]; } && is_more "$value" "$4"; then
        echo "$file:$number allows $value"
        return
      fi
    done <"$file"
  done
  what='Max open files'
  [ "$3" = nofile ] || what='Max locked memory' unit=1024
  value=$(sed -n "s/^$what  *[^ ]*  *\([^ ]*\).*/\1/p" "$prefix/proc/self/limits" 2>/dev/null || :)
  is_more "$value" $(($4 * unit)) && echo "this shell has more already: $value"
}

# limits.conf for this host, on stdout: without what would lower a limit.
limits_for_here() {
  local line domain type item value why
  while IFS= read -r line; do
    read -r domain type item value <<TEXT
$line
TEXT
    case $domain in
      '' | '#'*) echo "$line" ;;
      *)
        if why=$(allowed_already "$domain" "$type" "$item" "$value"); then line="# $line   # $why"; fi
        echo "$line"
        ;;
    esac
  done <"$here/limits.conf"
}
