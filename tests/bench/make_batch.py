#!/usr/bin/env python3
# ruff: noqa
# fmt: off
# The generator of the benchmarks, kept in the dense form it was measured in.
"""Write a synthetic Kaapana-like batch of DICOM series (own code, needs numpy + pydicom only).

Layout:  ROOT/<workflow>/batch/<SeriesInstanceUID>/initial-input/<SOPInstanceUID>.dcm
Every series is a chest-like phantom with right patient geometry (IPP/IOP/spacing, one frame
of reference per study), correlated noise, one spherical nodule of known size, and about 110
header elements (private block and nested sequences included).  Same seed = same bytes.

  make_batch.py OUT --series 100 --slices 200                    # 20,000 CT instances, ~10.6 GB
  make_batch.py OUT --series 4 --slices 24 --size 128 --modality mixed --messy   # small test batch
  make_batch.py OUT --volume lung1_image.nrrd --modality CT      # real volume -> DICOM (needs SimpleITK)
  make_batch.py OUT --syntax rle|jpegls|j2k                      # compressed (pydicom encoder plugins)
"""
import argparse, hashlib, json, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (CTImageStorage, MRImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian,
                         RLELossless, JPEGLSLossless, JPEG2000Lossless)

ROOT_UID = "1.2.826.0.1.3680043.8.498."
SYNTAX = {"explicit": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian, "rle": RLELossless,
          "jpegls": JPEGLSLossless, "j2k": JPEG2000Lossless}


def uid(*what):
    """Deterministic UID of at most 64 characters."""
    return (ROOT_UID + str(int(hashlib.sha256("|".join(map(str, what)).encode()).hexdigest()[:30], 16)))[:64]


# ---------------------------------------------------------------- the phantom
def noise_bank(rng, n=1 << 22, sigma=14.0):
    b = rng.normal(0, sigma, n + 2).astype(np.float32)
    return np.rint((b[:-2] + 2 * b[1:-1] + b[2:]) / 2.4).astype(np.int16)     # correlated along the row


def ellipse(img, cx, cy, a, b, value, sl=None):
    n = img.shape[0]
    x0, x1 = max(0, int(cx - a)), min(n, int(cx + a) + 2)
    y0, y1 = max(0, int(cy - b)), min(n, int(cy + b) + 2)
    if x0 >= x1 or y0 >= y1 or a <= 0 or b <= 0:
        return
    dx = ((np.arange(x0, x1, dtype=np.float32) - cx) / a) ** 2
    dy = ((np.arange(y0, y1, dtype=np.float32) - cy) / b) ** 2
    img[y0:y1, x0:x1][dy[:, None] + dx[None, :] <= 1.0] = value


def phantom_slice(k, nz, n, p, modality):
    """One axial slice in HU (CT) or arbitrary units (MR); k counts from the feet."""
    t = k / max(1, nz - 1)                                   # 0 feet .. 1 head
    T = ((-1000, -90, 50, -860, 35, 240, 700, 60, 120) if modality == "CT"
         else (0, 900, 420, 60, 500, 200, 90, 380, 700))
    air, fat, muscle, lung, blood, spine, rib, liver, nodule = T
    img = np.full((n, n), air, np.int16)
    s = n / 512.0
    cx, cy = p["cx"] * n, p["cy"] * n
    w, h = p["w"] * s * (1 - .10 * abs(2 * t - 1)), p["h"] * s * (1 - .06 * abs(2 * t - 1))
    ellipse(img, cx, cy, w, h, fat)
    ellipse(img, cx, cy, w - 14 * s, h - 12 * s, muscle)
    lz = np.sin(np.pi * np.clip((t - .12) / .8, 0, 1)) ** .5  # lung height profile
    for sgn in (-1, 1):
        ellipse(img, cx + sgn * .43 * w, cy - 6 * s, .36 * w * lz, .68 * h * lz, lung)
    if t < .42:                                              # liver dome and stomach
        q = (1 - t / .42) ** .5
        ellipse(img, cx - .38 * w, cy - .05 * h, .46 * w * q, .55 * h * q, liver)
        ellipse(img, cx + .40 * w, cy - .15 * h, .26 * w * q, .34 * h * q, blood)
    q = 1 - ((t - .45) / .25) ** 2
    if q > 0:                                                # heart
        ellipse(img, cx + .10 * w, cy - .20 * h, .27 * w * q ** .5, .36 * h * q ** .5, blood)
    ellipse(img, cx + .06 * w, cy + .34 * h, 14 * s, 14 * s, blood + 60)          # aorta
    ellipse(img, cx, cy + .62 * h, 24 * s, 20 * s, spine)
    ellipse(img, cx, cy + .62 * h, 20 * s, 16 * s, spine - 90)
    ellipse(img, cx, cy + .62 * h + 30 * s, 10 * s, 10 * s, blood)                 # canal
    for j in range(10):                                      # ribs wander round the thorax
        ang = 2 * np.pi * (j / 10 + .17 * t * 6)
        ellipse(img, cx + .86 * w * np.cos(ang), cy + .86 * h * np.sin(ang), 11 * s, 6 * s, rib)
    dz = (k - p["nz"]) * p["dz"] / p["px"]                   # nodule: a sphere of radius nr mm
    r2 = (p["nr"] / p["px"]) ** 2 - dz * dz
    if r2 > 0:
        ellipse(img, cx - .43 * w, cy + .1 * h, r2 ** .5, r2 ** .5, nodule)
    return img


# ---------------------------------------------------------------- the header
def template(i, seed, modality, n, nz, px, dz, study, frame_of_ref, ts, rich=True):
    r = np.random.default_rng([seed, study, 7])
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality == "CT" else ["ORIGINAL", "PRIMARY", "M", "ND"]
    ds.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    day = "20%02d%02d%02d" % (r.integers(10, 25), r.integers(1, 13), r.integers(1, 28))
    for kw in ("InstanceCreationDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(ds, kw, day)
    ds.StudyTime, ds.SeriesTime = "101500.000000", "10%02d00.000000" % (i % 60)
    ds.AccessionNumber = "A%07d" % study
    ds.Modality, ds.Manufacturer, ds.InstitutionName = modality, "SYNTHETIC", "Phantom Hospital"
    ds.ReferringPhysicianName, ds.StationName = "Nobody^N.", "STN%02d" % (study % 7)
    ds.StudyDescription = "Thorax" if modality == "CT" else "Thorax MR"
    ds.SeriesDescription = ("Thorax %.1f B31f %d" if modality == "CT" else "t1_vibe_tra %.1f %d") % (dz, i)
    ds.ManufacturerModelName = "Phantom 64"
    ds.PatientName, ds.PatientID = "Phantom^P%04d" % study, "P%04d" % study
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19%02d0101" % r.integers(40, 99), "MFO"[r.integers(0, 3)], "%03dY" % r.integers(20, 80)
    ds.PatientWeight = "%.1f" % r.uniform(50, 110)
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "synthetic"
    ds.BodyPartExamined, ds.ProtocolName, ds.PatientPosition = "CHEST", "Thorax^Routine", "HFS"
    ds.SliceThickness, ds.SpacingBetweenSlices = "%g" % dz, "%g" % dz
    ds.DeviceSerialNumber, ds.SoftwareVersions = "12345", ["syn 1.0", "B31"]
    if modality == "CT":
        ds.ScanOptions, ds.KVP, ds.DataCollectionDiameter = "SPIRAL", "120", "500"
        ds.ReconstructionDiameter, ds.DistanceSourceToDetector, ds.DistanceSourceToPatient = "%g" % (px * n), "1040", "570"
        ds.GantryDetectorTilt, ds.TableHeight, ds.RotationDirection = "0", "150", "CW"
        ds.ExposureTime, ds.XRayTubeCurrent, ds.Exposure, ds.FilterType = "500", "%d" % r.integers(80, 300), "120", "0"
        ds.GeneratorPower, ds.FocalSpots, ds.ConvolutionKernel = "36", "1.2", "B31f"
        ds.SingleCollimationWidth, ds.TotalCollimationWidth, ds.TableSpeed = .6, 38.4, 46.0
        ds.SpiralPitchFactor, ds.CTDIvol = 1.0, 8.1
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
        ds.WindowCenter, ds.WindowWidth, ds.WindowCenterWidthExplanation = ["40", "-600"], ["400", "1500"], ["SOFT", "LUNG"]
    else:
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "GR", ["SP", "OSP"], "", "3D"
        ds.RepetitionTime, ds.EchoTime, ds.FlipAngle, ds.MagneticFieldStrength = "4.2", "1.9", "9", "1.5"
        ds.ImagingFrequency, ds.ImagedNucleus, ds.EchoTrainLength, ds.PixelBandwidth = "63.6", "1H", "1", "445"
        ds.WindowCenter, ds.WindowWidth = "450", "1000"
    ds.StudyInstanceUID = uid(seed, "study", study)
    ds.SeriesInstanceUID = uid(seed, "series", i)
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber = str(study), str(i % 20 + 1), "1"
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = frame_of_ref, "SN"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = n
    ds.PixelSpacing = ["%g" % px, "%g" % px]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    if rich:                                                 # what real scanners add: private data, sequences
        b = ds.private_block(0x0029, "SYNTHETIC CSA HEADER", create=True)
        b.add_new(0x10, "UN", bytes(r.integers(0, 256, 2048, dtype=np.uint8)))
        b.add_new(0x11, "LO", "IMAGE NUM 4")
        b2 = ds.private_block(0x0019, "SYNTHETIC CT", create=True)
        for e in range(0x10, 0x20):
            b2.add_new(e, "DS", "%.4f" % r.uniform(0, 100))
        ref = Dataset(); ref.ReferencedSOPClassUID = CTImageStorage; ref.ReferencedSOPInstanceUID = uid(seed, "scout", i)
        ds.ReferencedImageSequence = Sequence([ref])
        c = Dataset(); c.CodeValue, c.CodingSchemeDesignator, c.CodeMeaning = "RPID16", "RADLEX", "CT Chest"
        ds.ProcedureCodeSequence = Sequence([c])
        q = Dataset(); q.RequestedProcedureDescription, q.RequestedProcedureID = "CT Chest", "RP%d" % study
        q.ScheduledProcedureStepID = "S1"; ds.RequestAttributesSequence = Sequence([q])
        ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = day, "101500"
        ds.PerformedProcedureStepID, ds.PerformedProcedureStepDescription = "PPS%d" % study, "CT Thorax"
        ds.ImageComments = "synthetic phantom; not for diagnosis"
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = ds.SOPClassUID, ts
    meta.ImplementationClassUID, meta.ImplementationVersionName = uid("impl"), "MAKE_BATCH_1"
    return ds, meta


class Patcher:
    """Encode the header once; per instance join its pieces round freshly encoded values (about 50x pydicom)."""

    def __init__(self, ds, meta, npix):
        mark = {"sop": "1." + "9" * 60, "num": "1777777012", "loc": "-7777703.0000001", "tim": "070707.777777",
                "pos": "-7777702.0000001\\-7777702.0000002\\-7777702.0000003"}
        ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = mark["sop"]
        ds.InstanceNumber, ds.SliceLocation = mark["num"], mark["loc"]
        ds.AcquisitionTime = ds.ContentTime = mark["tim"]
        ds.ImagePositionPatient = mark["pos"].split("\\")
        implicit = meta.TransferSyntaxUID == ImplicitVRLittleEndian
        out = DicomBytesIO(); out.is_little_endian, out.is_implicit_VR = True, implicit
        m = DicomBytesIO(); m.is_little_endian, m.is_implicit_VR = True, False
        write_file_meta_info(m, meta, enforce_standard=True)
        write_dataset(out, ds)
        buf = (b"\0" * 128 + b"DICM" + m.getvalue() + out.getvalue()
               + b"\xe0\x7f\x10\x00" + (b"" if implicit else b"OW\0\0") + npix.to_bytes(4, "little"))
        self.implicit, self.meta_end, places = implicit, 132 + len(m.getvalue()), []
        for key, text in mark.items():
            text = text.encode(); at = buf.find(text)
            assert at > 0, key
            while at >= 0:
                places.append((at, len(text) + len(text) % 2, key)); at = buf.find(text, at + 1)
        self.pieces, last = [], 0
        for at, n, key in sorted(places):                    # cut before the length field of each element
            cut = at - (4 if implicit and at > self.meta_end else 2)
            self.pieces.append((buf[last:cut], key, cut < self.meta_end or not implicit)); last = at + n
        self.tail = buf[last:]

    def head(self, sop, number, pos, seconds):
        h, r = divmod(int(seconds), 3600); mi, sec = divmod(r, 60)
        text = {"sop": sop, "num": str(number), "tim": "%02d%02d%02d.%06d" % (h, mi, sec, round(seconds % 1 * 1e6)),
                "pos": "\\".join("%.10g" % v for v in pos), "loc": "%.10g" % pos[2]}
        val = {k: v.encode() + (b"\0" if k == "sop" else b" ") * (len(v) % 2) for k, v in text.items()}
        b = bytearray()
        for piece, key, explicit in self.pieces:
            v = val[key]
            b += piece + len(v).to_bytes(2 if explicit else 4, "little") + v
        b += self.tail
        grow = len(val["sop"]) - 62                          # keep (0002,0000) right
        b[140:144] = (int.from_bytes(b[140:144], "little") + grow).to_bytes(4, "little")
        return b


def write_series(job):
    i, a = job
    rng = np.random.default_rng([a.seed, i])
    mod = a.modality if a.modality in ("CT", "MR") else ("CT", "MR")[i % 2]
    study = i // a.series_per_study
    ts = SYNTAX[a.syntax]
    vol = None
    if a.volume:
        import SimpleITK as sitk
        im = sitk.ReadImage(a.volume); vol = sitk.GetArrayFromImage(im).astype(np.int16)
        px, dz = im.GetSpacing()[0], im.GetSpacing()[2]
        nz, n = vol.shape[0], vol.shape[1]
        assert vol.shape[1] == vol.shape[2], "square slices only"
        origin = im.GetOrigin()
    else:
        n, nz = a.size, a.slices
        px, dz = round(float(rng.uniform(.6, .9)) * 512 / n, 4), a.thickness
        origin = (-px * n / 2, -px * n / 2, -round(float(rng.uniform(100, 400)), 1))
    ds, meta = template(i, a.seed, mod, n, nz, px, dz, study, uid(a.seed, "for", study), ts, not a.plain)
    folder = os.path.join(a.out, a.workflow, "batch", ds.SeriesInstanceUID, a.input_name)
    os.makedirs(folder, exist_ok=True)
    p = dict(cx=rng.uniform(.47, .53), cy=rng.uniform(.47, .53), w=rng.uniform(195, 225), h=rng.uniform(140, 165),
             nz=nz * rng.uniform(.5, .7), nr=rng.uniform(4, 15), dz=dz, px=px)
    bank = noise_bank(np.random.default_rng(a.seed))
    off = rng.integers(0, len(bank) - n * n, nz)
    plain_ts = ts in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    head_ts = ts if plain_ts else ExplicitVRLittleEndian
    meta.TransferSyntaxUID = head_ts
    patch = Patcher(ds, meta, n * n * 2)
    size = 0
    for k in range(nz):
        if vol is not None:
            img = vol[k] + (1024 if mod == "CT" else 0)
        else:
            img = phantom_slice(k, nz, n, p, mod)
            if not a.no_noise:
                img += bank[off[k]:off[k] + n * n].reshape(n, n)
            img = img + 1024 if mod == "CT" else np.maximum(img, 0)
        sop = uid(a.seed, i, k)
        head = patch.head(sop, nz - k, (origin[0], origin[1], origin[2] + k * dz), 36900 + k * .4)
        body = np.ascontiguousarray(img, "<i2")
        path = os.path.join(folder, sop + ".dcm")
        if plain_ts:
            with open(path, "wb", buffering=0) as f:
                size += os.writev(f.fileno(), [head, body])
        else:
            d = pydicom.dcmread(BytesIO(bytes(head) + body.tobytes()))
            d.compress(ts, generate_instance_uid=False)
            d.save_as(path); size += os.path.getsize(path)
    return dict(series=ds.SeriesInstanceUID, modality=mod, slices=nz, size=n, spacing=[px, px, dz], bytes=size, path=folder,
                nodule=None if vol is not None else dict(radius_mm=round(p["nr"], 3), slice=round(p["nz"], 2)))


def messy(a, made):
    """Odd things a real batch holds: each in its own place, told in the manifest."""
    odd = []
    f0 = made[0]["path"]; files = sorted(os.listdir(f0))
    def note(path, what): odd.append(dict(path=os.path.relpath(path, a.out), what=what))
    b = open(os.path.join(f0, files[0]), "rb").read()
    for name, data, what in (("empty.dcm", b"", "zero bytes"), ("truncated.dcm", b[:len(b) // 2], "pixel data cut"),
                             ("header-cut.dcm", b[:700], "header cut"), ("notes.txt", b"hello\n", "not DICOM"),
                             ("no-preamble.dcm", b[132:], "no preamble, no DICM"), ("copy of one.dcm", b, "duplicate SOP instance"),
                             (".DS_Store", b"\0\0\0\1Bud1", "junk")):
        p = os.path.join(f0, name); open(p, "wb").write(data); note(p, what)
    if len(made) > 1:
        f1 = made[1]["path"]; g = sorted(os.listdir(f1))
        d = pydicom.dcmread(os.path.join(f1, g[0])); z = float(d.ImagePositionPatient[2])
        order = sorted(g, key=lambda x: float(pydicom.dcmread(os.path.join(f1, x), stop_before_pixels=True, specific_tags=["ImagePositionPatient"]).ImagePositionPatient[2]))
        os.remove(os.path.join(f1, order[len(order) // 2])); note(f1, "one slice missing")
    e = os.path.join(a.out, a.workflow, "batch", uid(a.seed, "emptyseries"), a.input_name); os.makedirs(e); note(e, "empty series folder")
    return odd


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out"); ap.add_argument("--workflow", default="collect-metadata-240101120000000000")
    ap.add_argument("--input-name", default="initial-input")
    ap.add_argument("--series", type=int, default=4); ap.add_argument("--slices", type=int, default=40)
    ap.add_argument("--size", type=int, default=512); ap.add_argument("--thickness", type=float, default=1.5)
    ap.add_argument("--modality", choices=("CT", "MR", "mixed"), default="CT")
    ap.add_argument("--series-per-study", type=int, default=2)
    ap.add_argument("--syntax", choices=tuple(SYNTAX), default="explicit")
    ap.add_argument("--seed", type=int, default=1); ap.add_argument("--workers", type=int, default=os.cpu_count())
    ap.add_argument("--plain", action="store_true", help="no private data or sequences"); ap.add_argument("--no-noise", action="store_true")
    ap.add_argument("--volume", help="a NRRD/NIfTI volume to write instead of the phantom")
    ap.add_argument("--messy", action="store_true"); ap.add_argument("--manifest")
    a = ap.parse_args()
    if a.volume:
        a.series = 1
    t0 = time.perf_counter()
    jobs = [(i, a) for i in range(a.series)]
    if a.workers > 1 and a.series > 1:
        with ProcessPoolExecutor(a.workers) as ex:
            made = list(ex.map(write_series, jobs))
    else:
        made = [write_series(j) for j in jobs]
    odd = messy(a, made) if a.messy else []
    dt, n, size = time.perf_counter() - t0, sum(m["slices"] for m in made), sum(m["bytes"] for m in made)
    if a.manifest:
        json.dump(dict(series=made, odd=odd), open(a.manifest, "w"), indent=1)
    print("%d series, %d instances, %.2f GB in %.1f s (%.0f instances/s, %.0f MB/s)" % (len(made), n, size / 1e9, dt, n / dt, size / dt / 1e6))


if __name__ == "__main__":
    main()
