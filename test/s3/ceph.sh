#!/usr/bin/env bash
# A real S3 server for tests: Ceph RADOS Gateway from Debian's packages, on this machine alone.
#
#   ceph.sh start       installs what is missing, starts it or leaves it running, prints its endpoint and keys as JSON
#   ceph.sh stop        ends it; the data stay
#   ceph.sh kill-rgw    SIGKILL to the gateway; `start` brings it back
#   ceph.sh wipe        ends it and removes the data
#
# CEPH_PORT (7480), CEPH_DIR (/tmp/rozen-ceph), CEPH_GIB (20; a sparse file). Needs root. One monitor, one OSD on a sparse file, one
# gateway, all on 127.0.0.1, without cephx. Every wait has an end.
#
# Where Ceph 16 differs from AWS: it ignores If-None-Match when parts are joined, and in buckets with Object Lock, gives no ETag then, drops lock headers of
# CreateMultipartUpload, refuses the trailers of aws-chunked bodies, and keeps storage classes without freezing anything.
set -euo pipefail
port=${CEPH_PORT:-7480}
dir=${CEPH_DIR:-/tmp/rozen-ceph}
gib=${CEPH_GIB:-20}
access=rozentestaccesskey01
secret=rozentestsecretkey0000000000000000000001
monitor=$((port + 1))
case $dir in /tmp/?*) ;; *) echo "CEPH_DIR must lie below /tmp" >&2; exit 2 ;; esac

say() { echo "ceph: $*" >&2; }
conf() { local program=$1; shift; timeout 60 "$program" -c "$dir/ceph.conf" "$@"; }

install_packages() {
  local program
  for program in radosgw ceph-mon ceph-osd ceph curl; do
    command -v "$program" >/dev/null || break
  done
  command -v "$program" >/dev/null && return
  say "installing from Debian"
  # Nothing may be started by the packages themselves.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  timeout 300 apt-get -qq update >&2
  timeout 600 apt-get -qqy --no-install-recommends install radosgw ceph-mon ceph-osd ceph-common curl >"/tmp/rozen-ceph-apt.log" 2>&1 ||
    { tail -20 /tmp/rozen-ceph-apt.log >&2; return 1; }
}

# A pid file counts while that process lives and is the program that was started.
runs() {
  local pid
  pid=$(cat "$dir/$1.pid" 2>/dev/null) && [ -n "$pid" ] && [ "$(basename "$(readlink "/proc/$pid/exe" 2>/dev/null)")" = "$1" ]
}

launch() {
  local program=$1
  shift
  runs "$program" && return
  setsid "$program" -c "$dir/ceph.conf" -f "$@" >>"$dir/log/$program.out" 2>&1 </dev/null &
  echo $! >"$dir/$program.pid"
  disown
}

end() {
  local program=$1 signal=$2 pid
  if runs "$program"; then
    pid=$(cat "$dir/$program.pid")
    kill "-$signal" "$pid" 2>/dev/null || true
    for _ in $(seq 100); do runs "$program" || break; sleep 0.1; done
    if runs "$program"; then kill -KILL "$pid" 2>/dev/null || true; sleep 0.5; fi
  fi
  rm -f "$dir/$program.pid"
}

within() {
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt "$limit" ] || { say "$what does not come up; see $dir/log"; return 1; }
    sleep 0.2
  done
}

monitor_up() { conf ceph mon stat; }
osd_up() { conf ceph osd stat -f json | grep -q '"num_up_osds":1'; }
gateway_up() { curl -s -o /dev/null --max-time 2 "http://127.0.0.1:$port/"; }

make_cluster() {
  rm -rf "$dir"
  mkdir -p "$dir"/{log,mon,osd,run}
  local fsid osd
  fsid=$(cat /proc/sys/kernel/random/uuid)
  osd=$(cat /proc/sys/kernel/random/uuid)
  cat >"$dir/ceph.conf" <<INI
[global]
fsid = $fsid
mon host = v2:127.0.0.1:$monitor/0
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind port min = $((port + 10))
ms bind port max = $((port + 60))
auth cluster required = none
auth service required = none
auth client required = none
run dir = $dir/run
admin socket = $dir/run/\$name.asok
pid file =
log file = $dir/log/\$name.log
crash dir = $dir/crash
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
mon data avail crit = 1
mon data avail warn = 2
[mon]
mon data = $dir/mon
mon cluster log file = $dir/log/cluster.log
[osd]
osd data = $dir/osd
osd objectstore = bluestore
bluestore block create = true
bluestore block size = $((gib * 1024 * 1024 * 1024))
osd memory target = 1073741824
[client.rgw]
rgw data = $dir
keyring = /dev/null
# Without cephx there are no encrypted connections to the monitor, which a gateway asks for by itself.
ms mon client mode = crc
# Without tcp_nodelay each small GET waits 40 ms for a delayed ACK.
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw enable usage log = false
rgw dynamic resharding = false
rgw rados pool pg num min = 8
rgw thread pool size = 64
INI
  monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$monitor/0]" "$dir/monmap" >/dev/null
  conf ceph-mon --mkfs -i a --monmap "$dir/monmap" >>"$dir/log/mkfs.out" 2>&1
  launch ceph-mon -i a
  within 60 "the monitor" monitor_up
  conf ceph osd new "$osd" >/dev/null
  conf ceph-osd --mkfs -i 0 --osd-uuid "$osd" >>"$dir/log/mkfs.out" 2>&1
}

make_user() {
  conf radosgw-admin -n client.rgw user create --uid=test --display-name=test --access-key="$access" --secret-key="$secret" \
    >"$dir/log/user.json" 2>>"$dir/log/admin.out"
  local class
  for class in GLACIER_IR GLACIER DEEP_ARCHIVE; do
    conf radosgw-admin -n client.rgw zonegroup placement add --rgw-zonegroup default --placement-id default-placement \
      --storage-class "$class" >/dev/null 2>>"$dir/log/admin.out"
    conf radosgw-admin -n client.rgw zone placement add --rgw-zone default --placement-id default-placement \
      --storage-class "$class" --data-pool default.rgw.cold.data >/dev/null 2>>"$dir/log/admin.out"
  done
  touch "$dir/ready"
}

start() {
  install_packages
  if [ ! -e "$dir/ready" ]; then
    stop
    make_cluster
  fi
  launch ceph-mon -i a
  within 60 "the monitor" monitor_up
  launch ceph-osd -i 0
  within 90 "the OSD" osd_up
  [ -e "$dir/ready" ] || make_user
  launch radosgw -n client.rgw
  within 120 "the gateway" gateway_up
  printf '{"endpoint":"http://127.0.0.1:%s","accessKeyId":"%s","secretAccessKey":"%s"}\n' "$port" "$access" "$secret"
}

stop() {
  end radosgw TERM
  end ceph-osd TERM
  end ceph-mon TERM
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  kill-rgw) end radosgw KILL ;;
  wipe) stop; rm -rf "$dir" ;;
  *) sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | head -n -1; exit 2 ;;
esac
