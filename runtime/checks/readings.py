"""Clocks, temperatures and power of this machine, as the kernel tells them."""

from __future__ import annotations

from pathlib import Path

THERMAL = Path("/sys/class/thermal")
CPUS = Path("/sys/devices/system/cpu")
HWMON = Path("/sys/class/hwmon")
DEVFREQ = Path("/sys/class/devfreq")


def readings() -> dict[str, float]:
    """Clocks in MHz, temperatures in Celsius, power in watts: those that the platform reports."""
    found: dict[str, float] = {}
    for cpu in sorted(CPUS.glob("cpu[0-9]*")):
        _add(found, f"{cpu.name}_mhz", cpu / "cpufreq" / "scaling_cur_freq", 1e-3)
    for clock in sorted(DEVFREQ.glob("*")):  # the GPU of a Jetson: 17000000.gpu
        _add(found, f"{clock.name}_mhz", clock / "cur_freq", 1e-6)
    for zone in sorted(THERMAL.glob("thermal_zone*")):
        name = text_of(zone / "type") or zone.name
        name = f"{name}_{zone.name}" if f"{name}_c" in found else name  # zones may have one type, as on PCs
        _add(found, f"{name}_c", zone / "temp", 1e-3)
    for monitor in sorted(HWMON.glob("hwmon*")):  # ina3221 on a Jetson: volts and amperes of each rail
        for volts in sorted(monitor.glob("in[0-9]_input")):
            number = volts.name[2]
            label = text_of(monitor / f"in{number}_label") or f"{monitor.name}_{number}"
            volt: dict[str, float] = {}
            _add(volt, "mv", volts, 1.0)
            _add(volt, "ma", monitor / f"curr{number}_input", 1.0)
            if len(volt) == 2:
                found[f"{label}_w"] = volt["mv"] * volt["ma"] * 1e-6
    return found


def _add(found: dict[str, float], name: str, path: Path, scale: float) -> None:
    try:
        found[name] = float(text_of(path)) * scale
    except ValueError:
        return


def text_of(path: Path) -> str:
    """What a file of the kernel says; empty where it says nothing."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
