#!/usr/bin/env python3
"""The report of seismic-triage.yaml by other means: plain loops and exact fractions, standard library only.

Usage: seismic_report.py [FILE]      (default: data/earthquakes.ndjson beside this file)

Prints one JSON object. Magnitudes and depths are floats everywhere; counts and times are integers. A mean magnitude
is the exact mean of the decimal numbers as written in the file, rounded to two decimals, halves away from zero.
Lists are ordered by count (largest first), then by name; `tsunami` and `set_aside.ids` keep the order of the file.
"""

import json
import pathlib
import sys
from decimal import Decimal
from fractions import Fraction

ABBREVIATED = {"CA": "California", "NV": "Nevada", "MX": "Mexico"}
CLASSES = [(2, "micro"), (4, "minor"), (5, "light"), (6, "moderate"), (7, "strong"), (8, "major")]


def rounded(value: Fraction) -> float:
    """To two decimals, halves away from zero."""
    hundredths = abs(value) * 100
    whole = hundredths.numerator // hundredths.denominator
    if hundredths - whole >= Fraction(1, 2):
        whole += 1
    return (-whole if value < 0 else whole) / 100


def number(value) -> bool:
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def objections(record) -> list:
    """Why a record is set aside; empty when it is kept."""
    mag, place, depth = record.get("mag"), record.get("place"), record.get("depth_km")
    lat, lon = record.get("lat"), record.get("lon")
    wrong_type = [x for x in (mag, depth, lat, lon) if x is not None and not number(x)]
    if wrong_type or (place is not None and not isinstance(place, str)):
        return ["malformed"]
    if any(key not in record for key in ("id", "time_ms", "status", "type", "tsunami")):
        return ["malformed"]
    automatic, blast = record["status"] == "automatic", record["type"] != "earthquake"
    found = []
    if mag is None:
        found.append("magnitude_missing")
    elif not -3 <= mag <= 10:
        found.append("magnitude_impossible")
    if not place:
        found.append("place_missing")
    if lat is None or lon is None or abs(lat) > 90 or abs(lon) > 180:
        found.append("position_impossible")
    if depth is None:
        found.append("depth_missing")
    else:
        if depth < 0 and automatic:
            found.append("above_sea_level_unreviewed")
        if depth == 0 and automatic and not blast:
            found.append("depth_unresolved")
        if depth > 5 and blast:
            found.append("blast_too_deep")
    return found


def class_of(record) -> str:
    if record["type"] != "earthquake":
        return record["type"]
    return next((name for below, name in CLASSES if record["mag"] < below), "great")


def region_of(record) -> str:
    name = record["place"].rpartition(", ")[2]
    return ABBREVIATED.get(name, name)


def table(records, key, key_of) -> list:
    groups = {}
    for record in records:
        groups.setdefault(key_of(record), []).append(record)
    rows = []
    for name, members in groups.items():
        magnitudes = [Fraction(m["mag"]) for m in members]
        rows.append({
            key: name,
            "count": len(members),
            "max_magnitude": float(max(magnitudes)),
            "mean_magnitude": rounded(sum(magnitudes, Fraction(0)) / len(members)),
            "deepest_km": float(max(m["depth_km"] for m in members)),
            "tsunami_flags": sum(m["tsunami"] == 1 for m in members),
        })
    return sorted(rows, key=lambda row: (-row["count"], row[key]))


def main() -> None:
    here = pathlib.Path(__file__).resolve().parent
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "data" / "earthquakes.ndjson"
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line, parse_float=Decimal) for line in lines if line.strip()]

    kept, rejected, reasons = [], [], {}
    for record in records:
        found = objections(record)
        if not found:
            kept.append(record)
            continue
        rejected.append("" if found == ["malformed"] else record["id"])
        for reason in found:
            reasons[reason] = reasons.get(reason, 0) + 1

    set_aside = {
        "records": len(rejected),
        "by_reason": [{"reason": name, "count": reasons[name]} for name in sorted(reasons)],
        "ids": rejected,
    }
    totals = {"records": len(records), "kept": len(kept), "set_aside": len(rejected)}
    if not kept:
        print(json.dumps({"totals": totals, "set_aside": set_aside}, indent=2, ensure_ascii=False))
        return

    regions = table(kept, "region", region_of)
    tsunami = [r for r in kept if r["tsunami"] == 1]
    natural = sum(r["type"] == "earthquake" for r in kept)
    top = min(kept, key=lambda r: (-r["mag"], r["time_ms"]))
    totals |= {
        "earthquakes": natural,
        "blasts": len(kept) - natural,
        "regions": len(regions),
        "tsunami_flags": len(tsunami),
    }
    report = {
        "totals": totals,
        "set_aside": set_aside,
        "by_class": table(kept, "class", class_of),
        "by_region": regions[:10],
        "strongest": {
            "id": top["id"],
            "time_ms": top["time_ms"],
            "place": top["place"],
            "region": region_of(top),
            "class": class_of(top),
            "magnitude": float(top["mag"]),
            "depth_km": float(top["depth_km"]),
        },
        "tsunami": [
            {"id": r["id"], "time_ms": r["time_ms"], "place": r["place"], "magnitude": float(r["mag"])}
            for r in tsunami
        ],
    }
    print(json.dumps(report, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
