#!/bin/bash
# Start a real systemd with the unit, in a root of its own. Usage: systemd_root.sh SCRATCH FILES PREFIX PYTHON PACKAGES...
#
# Run it as `unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net`, in a cgroup of its own. The root is an
# overlay: the machine's files can be read, and everything written is in memory. /tmp, /run, /dev, /proc and /sys are new,
# and the machine's own root is unmounted before systemd starts, so that systemd cannot clean up or change anything there.
set -eu
scratch=$1 files=$2 prefix=$3 python=$4
shift 4
packages=$(seq -s : -f /opt/edge-hal/packages/%.0f $#)
mount --make-rprivate /
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
cd "$scratch/root"
rm -rf opt/edge-hal etc/edge-hal
mkdir -p old opt/edge-hal/{bin,python} etc/edge-hal
cp -r "$files"/. opt/edge-hal/
cat >opt/edge-hal/bin/edge-hal <<END
#!/bin/sh
export LD_LIBRARY_PATH=/opt/edge-hal/python/lib
export PYTHONPATH=/opt/edge-hal/package:$packages
exec /opt/edge-hal/python/bin/$python -m edge_hal "\$@"
END
chmod -R go+rX,go-w opt/edge-hal
chmod 755 opt/edge-hal/bin/edge-hal
mount --bind "$prefix" opt/edge-hal/python # it may be in a home, which the unit hides
mount -o remount,bind,ro opt/edge-hal/python
for number in $(seq $#); do # so may these
    mkdir -p "opt/edge-hal/packages/$number"
    mount --bind "${!number}" "opt/edge-hal/packages/$number"
    mount -o remount,bind,ro "opt/edge-hal/packages/$number"
done
cp opt/edge-hal/package/configs/edge-hal@.service etc/systemd/system/
mv opt/edge-hal/bench-1.env etc/edge-hal/
getent group video >/dev/null || echo 'video:x:44:' >>etc/group
getent group render >/dev/null || echo 'render:x:993:' >>etc/group
getent passwd edge-hal >/dev/null || { echo 'edge-hal:x:994:994::/nonexistent:/bin/false' >>etc/passwd; echo 'edge-hal:x:994:' >>etc/group; }
: >etc/fstab
for place in tmp run dev; do mount -t tmpfs -o mode=755 tmpfs $place; done
chmod 1777 tmp
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
ip link set lo up
pivot_root . old
cd /
umount -l /old
test -z "$(ls -A /tmp)" # else this machine's files would be at risk
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-sys_boot,-syslog \
    /lib/systemd/systemd --system --unit=edge-hal@bench-1.service --log-target=null
