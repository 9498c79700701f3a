"""The 42 features that the manifest of `threats` derives from a flow's 78: ratios, rates and entropies."""

FLAGS = ["FIN Flag Count", "SYN Flag Count", "RST Flag Count", "PSH Flag Count", "ACK Flag Count", "URG Flag Count"]
PACKETS = ["Total Fwd Packets", "Total Backward Packets"]
BYTES = ["Total Length of Fwd Packets", "Total Length of Bwd Packets"]
HEADERS = ["Fwd Header Length", "Bwd Header Length"]
SECOND = 1_000_000  # microseconds, which flows are timed in


def derived_features() -> list[dict]:
    """As the manifest has them."""

    def of(op: str, name: str, *names: str, **more) -> dict:
        return {"name": name, "op": op, "of": list(names), **more}

    def ratio(name: str, *names: str, **more) -> dict:
        return of("ratio", name, *names, **more)

    features = [
        of("sum", "Packets", *PACKETS),
        of("sum", "Bytes", *BYTES),
        of("share", "Fwd Share of Packets", *PACKETS),
        of("share", "Fwd Share of Bytes", *BYTES),
        of("entropy", "Entropy of Packet Directions", *PACKETS),
        of("entropy", "Entropy of Byte Directions", *BYTES),
        of("entropy", "Entropy of Flags", *FLAGS),
        of("entropy", "Entropy of Inter-Arrival Times", "Flow IAT Min", "Flow IAT Mean", "Flow IAT Max", "Flow IAT Std"),
        ratio("Packets Bwd to Fwd", *reversed(PACKETS)),
        ratio("Bytes Bwd to Fwd", *reversed(BYTES)),
        ratio("Bytes a Packet", "Bytes", "Packets"),
        ratio("Bytes a Fwd Packet", BYTES[0], PACKETS[0]),
        ratio("Bytes a Bwd Packet", BYTES[1], PACKETS[1]),
        ratio("Fwd Bytes/s", BYTES[0], "Flow Duration", scale=SECOND),
        ratio("Bwd Bytes/s", BYTES[1], "Flow Duration", scale=SECOND),
        ratio("Fwd Header Bytes/s", HEADERS[0], "Flow Duration", scale=SECOND),
        ratio("Header Bytes a Fwd Packet", HEADERS[0], PACKETS[0]),
        ratio("Header Bytes a Bwd Packet", HEADERS[1], PACKETS[1]),
        ratio("Header Bytes to Fwd Bytes", HEADERS[0], BYTES[0]),
        *(ratio(f"{flag.removesuffix(' Flag Count')} Flags a Packet", flag, "Packets") for flag in FLAGS),
        ratio("PSH Flags a Fwd Packet", "Fwd PSH Flags", PACKETS[0]),
        of("difference", "SYN minus FIN Flags", "SYN Flag Count", "FIN Flag Count"),
        ratio("SYN to ACK Flags", "SYN Flag Count", "ACK Flag Count"),
        ratio("Variation of Packet Length", "Packet Length Std", "Packet Length Mean"),
        ratio("Variation of Fwd Packet Length", "Fwd Packet Length Std", "Fwd Packet Length Mean"),
        ratio("Variation of Bwd Packet Length", "Bwd Packet Length Std", "Bwd Packet Length Mean"),
        of("difference", "Range of Packet Length", "Max Packet Length", "Min Packet Length"),
        ratio("Packet Length Fwd to Bwd", "Fwd Packet Length Mean", "Bwd Packet Length Mean"),
        ratio("Variation of Inter-Arrival Times", "Flow IAT Std", "Flow IAT Mean"),
        ratio("Variation of Fwd Inter-Arrival Times", "Fwd IAT Std", "Fwd IAT Mean"),
        ratio("Variation of Bwd Inter-Arrival Times", "Bwd IAT Std", "Bwd IAT Mean"),
        ratio("Longest Pause of Duration", "Flow IAT Max", "Flow Duration"),
        ratio("Fwd Time of Duration", "Fwd IAT Total", "Flow Duration"),
        ratio("Idle of Duration", "Idle Max", "Flow Duration"),
        of("share", "Active of Active and Idle", "Active Mean", "Idle Mean"),
        ratio("Window Fwd to Bwd", "Init_Win_bytes_forward", "Init_Win_bytes_backward"),
        ratio("Fwd Packets with Data", "act_data_pkt_fwd", PACKETS[0]),
    ]
    if len(features) != 42:
        raise AssertionError(f"{len(features)} derived features")
    return features
