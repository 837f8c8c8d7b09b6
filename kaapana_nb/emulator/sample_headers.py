"""DICOM headers of the sample batch: what scanners write, with patients that are made up."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

if TYPE_CHECKING:
    from kaapana_nb.emulator.sample_volumes import SourceVolume

_NAMESPACE = uuid.UUID("5f0bb5b4-3c1e-5d0a-9a3f-6b1f6f1d2a77")
CT_INTERCEPT = -1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One examination of one made-up patient."""

    key: str
    character_set: str | list[str]
    patient_name: str
    patient_id: str
    other_patient_id: str
    birth_date: str
    sex: str
    age: str
    accession_number: str
    study_id: str
    date: str
    time: str
    description: str
    institution: str
    address: str
    referring_physician: str
    performing_physician: str
    operator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSeries:
    """One series: slices `first` to `end - 1` of a packed volume, as part of a study."""

    key: str
    study: Study
    volume: str
    first: int
    end: int
    modality: str
    number: int
    description: str
    body_part: str
    time: str

    @property
    def series_uid(self) -> str:
        return uid("series", self.key)

    def instance_uid(self, index: int) -> str:
        """SOPInstanceUID of the slice at `index`, counted from the volume's first kept slice."""
        return uid("instance", self.key, str(index))


def uid(*content: str) -> str:
    """A UID that follows from what it names: version 5 UUID under the root 2.25 (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(content)).int}"


_MUELLER = Study(
    key="mueller", character_set="ISO_IR 100", patient_name="Müller-Lüdenscheidt^Jörg^Karl^Dr.",
    patient_id="KRF-20458817", other_patient_id="VNR-S480917263", birth_date="19531107", sex="M", age="071Y",
    accession_number="RAD2024117306", study_id="ST-77104", date="20241119", time="093412.000000",
    description="CT Thorax nativ", institution="Klinikum Rheinfels", address="Burgweg 14, 56329 Rheinfels",
    referring_physician="Weißgerber^Annegret^^Prof. Dr.", performing_physician="Groß^Özlem^^Dr.", operator="Kähler^Uwe",
)  # fmt: skip
_SZCZEPANSKA = Study(
    key="szczepanska", character_set="ISO_IR 192", patient_name="Szczepańska-O'Brien^Zofia Małgorzata",
    patient_id="KRF-20991342", other_patient_id="VNR-T730556104", birth_date="19680229", sex="F", age="056Y",
    accession_number="RAD2024118852", study_id="ST-78263", date="20241203", time="141055.000000",
    description="CT Thorax/Abdomen mit KM", institution="Klinikum Rheinfels", address="Burgweg 14, 56329 Rheinfels",
    referring_physician="Łaszkiewicz^Tomasz^^Dr.", performing_physician="Groß^Özlem^^Dr.", operator="Kähler^Uwe",
)  # fmt: skip
_YAMADA = Study(
    key="yamagiwa", character_set=["", "ISO 2022 IR 87"], patient_name="Yamagiwa^Tarou=山極^太郎=やまぎわ^たろう",
    patient_id="0009473651", other_patient_id="NH-88120467", birth_date="19710430", sex="M", age="053Y",
    accession_number="MR24-0093317", study_id="MR-50918", date="20241008", time="104500.000000",
    description="MRI BRAIN +C", institution="Sakuragawa Medical Center", address="3-1-12 Sakuragawa, Mito",
    referring_physician="Shinozaki^Haruka=篠崎^遥", performing_physician="Kuroiwa^Ken=黒岩^健", operator="Minagawa^Aoi",
)  # fmt: skip
_VANDERBERG = Study(
    key="vanderberg", character_set="ISO_IR 100", patient_name="VAN DER BERG^WILLEMIJN^J",
    patient_id="NL77340912", other_patient_id="BSN-999912348", birth_date="19890615", sex="F", age="035Y",
    accession_number="A0055821947", study_id="20240917-3", date="20240917", time="161203.000000",
    description="MRI HERSENEN", institution="Ziekenhuis Oosterduin", address="Duinlaan 210, 2199 Oosterduin",
    referring_physician="Hoogendijk^Pieter^^Dr.", performing_physician="Terpstra^Femke", operator="Wouda^Jelle",
)  # fmt: skip
_OEZTUERK = Study(
    key="oeztuerk", character_set="ISO_IR 192", patient_name="Öztürk^Ayşegül",
    patient_id="TR-4471-0028", other_patient_id="SGK-61920375", birth_date="19960823", sex="F", age="028Y",
    accession_number="MRG202411004", study_id="8842017", date="20241104", time="143008.000000",
    description="BRAIN", institution="Yeşilova Devlet Hastanesi", address="Çam Sokak 7, 15500 Yeşilova",
    referring_physician="Karabağ^Emre^^Doç. Dr.", performing_physician="Şahinkaya^Deniz", operator="Ergüven^Ali",
)  # fmt: skip

SERIES: tuple[SampleSeries, ...] = (
    SampleSeries(key="ct-thorax", study=_MUELLER, volume="lung1", first=0, end=28, modality="CT", number=2,
                 description="Thorax 5.0 B31f", body_part="CHEST", time="093530.000000"),
    SampleSeries(key="ct-thorax-contrast", study=_SZCZEPANSKA, volume="lung2", first=0, end=16, modality="CT",
                 number=3, description="Thorax ven. 5.0 B31f", body_part="CHEST", time="141210.000000"),
    SampleSeries(key="ct-apex-contrast", study=_SZCZEPANSKA, volume="lung2", first=16, end=24, modality="CT",
                 number=4, description="Thorax ap. 5.0 B31f", body_part="CHEST", time="141244.000000"),
    SampleSeries(key="mr-brain-contrast", study=_YAMADA, volume="brain1", first=0, end=25, modality="MR", number=7,
                 description="AX T1 POST", body_part="HEAD", time="105120.000000"),
    SampleSeries(key="mr-brain", study=_VANDERBERG, volume="brain2", first=0, end=23, modality="MR", number=5,
                 description="T1_SE_TRA", body_part="HEAD", time="162031.000000"),
    SampleSeries(key="mr-brain-oblique", study=_OEZTUERK, volume="brain3", first=0, end=20, modality="MR", number=2,
                 description="FSE PD AXIAL OBL", body_part="HEAD", time="143414.000000"),
)  # fmt: skip


def series_header(series: SampleSeries, volume: SourceVolume) -> Dataset:
    """Everything that the instances of a series share, pixels and position left out."""
    study = series.study
    ds = Dataset()
    ds.SpecificCharacterSet = study.character_set
    ds.SOPClassUID = CTImageStorage if series.modality == "CT" else MRImageStorage
    for keyword in ("InstanceCreationDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(ds, keyword, study.date)
    ds.StudyTime, ds.SeriesTime = study.time, series.time
    ds.Modality = series.modality
    _identify(ds, study)
    ds.StudyDescription, ds.SeriesDescription = study.description, series.description
    ds.BodyPartExamined, ds.PatientPosition = series.body_part, "HFS"
    ds.StudyInstanceUID = uid("study", study.key)
    ds.SeriesInstanceUID = series.series_uid
    ds.SeriesNumber, ds.AcquisitionNumber = str(series.number), "1"
    ds.FrameOfReferenceUID = uid("frame of reference", study.key)
    ds.PositionReferenceIndicator = "SN" if series.modality == "CT" else "NA"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = study.date, study.time
    ds.PerformedProcedureStepID = f"PPS{study.study_id[-5:]}"
    ds.PerformedProcedureStepDescription = study.description
    ds.SliceThickness = decimal(volume.spacing_mm[2])
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = volume.voxels.shape[1:]
    ds.PixelSpacing = [decimal(volume.spacing_mm[1]), decimal(volume.spacing_mm[0])]
    ds.ImageOrientationPatient = [decimal(value) for value in (*volume.row_direction, *volume.column_direction)]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    (_ct if series.modality == "CT" else _mr)(ds, series, volume)
    ds.update(Dataset.from_json(volume.attributes))
    _request(ds, series)
    _private(ds, series)
    return ds


def instance(header: Dataset, series: SampleSeries, volume: SourceVolume, index: int) -> Dataset:
    """The instance of one slice; `header` is taken over and changed, not copied."""
    position = volume.positions_mm[index]
    header.SOPInstanceUID = series.instance_uid(index)
    # Body scanners count from the head down, these head scans from the neck up.
    first_last = (series.end - index) if series.modality == "CT" else (index - series.first + 1)
    header.InstanceNumber = str(first_last)
    seconds = 60 * int(series.time[2:4]) + int(series.time[4:6]) + first_last
    header.AcquisitionTime = header.ContentTime = header.InstanceCreationTime = (
        f"{series.time[:2]}{seconds // 60:02d}{seconds % 60:02d}.{250000 + 1000 * first_last}"
    )
    header.ImagePositionPatient = [decimal(value) for value in position]
    normal = np.cross(volume.row_direction, volume.column_direction)
    header.SliceLocation = decimal(round(float(np.dot(normal, position)), 4))
    voxels = volume.voxels[index]
    stored = voxels - CT_INTERCEPT if series.modality == "CT" else voxels
    header.SmallestImagePixelValue, header.LargestImagePixelValue = int(stored.min()), int(stored.max())
    pixel_vr = "SS" if header.PixelRepresentation else "US"
    header["SmallestImagePixelValue"].VR = header["LargestImagePixelValue"].VR = pixel_vr
    header.PixelData = stored.astype("<i2").tobytes()
    header["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(uid("implementation"))
    meta.ImplementationVersionName = "KAAPANA_NB_SMPL"
    header.file_meta = meta
    return header


def decimal(value: float) -> str:
    """A DS value (at most 16 characters): 12 significant digits, far below what a scanner can resolve."""
    return f"{value:.12g}"


def _identify(ds: Dataset, study: Study) -> None:
    ds.AccessionNumber, ds.StudyID = study.accession_number, study.study_id
    ds.PatientName, ds.PatientID = study.patient_name, study.patient_id
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = study.other_patient_id, "TEXT"
    ds.OtherPatientIDsSequence = Sequence([other])
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = study.birth_date, study.sex, study.age
    ds.InstitutionName, ds.InstitutionAddress = study.institution, study.address
    ds.ReferringPhysicianName = study.referring_physician
    ds.PerformingPhysicianName, ds.OperatorsName = study.performing_physician, study.operator


def _ct(ds: Dataset, series: SampleSeries, volume: SourceVolume) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Manufacturer, ds.ManufacturerModelName = "SIEMENS", "Sensation 64"
    ds.StationName, ds.DeviceSerialNumber, ds.SoftwareVersions = "CTRF02", "54118-CT", "syngo CT 2009E"
    ds.ProtocolName, ds.ScanOptions, ds.KVP = "ThoraxRoutine", "SPIRAL", "120"
    ds.DataCollectionDiameter = "500"
    ds.ReconstructionDiameter = decimal(volume.spacing_mm[0] * volume.voxels.shape[2])
    ds.DistanceSourceToDetector, ds.DistanceSourceToPatient = "1040", "570"
    ds.GantryDetectorTilt, ds.TableHeight, ds.RotationDirection = "0", "152", "CW"
    ds.ExposureTime, ds.XRayTubeCurrent, ds.Exposure, ds.FilterType = "500", "187", "94", "0"
    ds.GeneratorPower, ds.FocalSpots, ds.ConvolutionKernel = "23", "1.2", "B31f"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(CT_INTERCEPT), "1", "HU"
    ds.WindowCenter, ds.WindowWidth = ["40", "-600"], ["400", "1500"]
    ds.WindowCenterWidthExplanation = ["SOFT_TISSUE", "LUNG"]
    if series.study.description.endswith("KM"):
        ds.ContrastBolusAgent = "Iomeprol 350"


def _mr(ds: Dataset, series: SampleSeries, volume: SourceVolume) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    ds.Manufacturer, ds.ManufacturerModelName = "GE MEDICAL SYSTEMS", "SIGNA EXCITE"
    ds.StationName, ds.DeviceSerialNumber, ds.SoftwareVersions = "MRS1", "0000315MR4", "11"
    ds.ProtocolName, ds.ScanningSequence, ds.SequenceVariant = "BRAIN ROUTINE", "SE", "SK"
    ds.ScanOptions, ds.MRAcquisitionType, ds.EchoTrainLength = "", "2D", "1"
    ds.RepetitionTime, ds.EchoTime, ds.FlipAngle, ds.NumberOfAverages = "550", "14", "90", "1"
    ds.MagneticFieldStrength, ds.ImagingFrequency, ds.ImagedNucleus, ds.PixelBandwidth = "1.5", "63.8", "1H", "122"
    ds.ReceiveCoilName, ds.InPlanePhaseEncodingDirection = "HEAD", "ROW"
    ds.SpacingBetweenSlices = decimal(volume.spacing_mm[2])
    bright = int(np.percentile(volume.voxels[series.first : series.end], 99.5))
    ds.WindowCenter, ds.WindowWidth = str(bright // 2), str(bright)


def _request(ds: Dataset, series: SampleSeries) -> None:
    """The nested sequences of a scheduled examination."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = f"{series.modality}{series.body_part}", "99RIS"
    code.CodeMeaning = series.study.description
    ds.ProcedureCodeSequence = Sequence([code])
    request = Dataset()
    request.RequestedProcedureDescription = series.study.description
    request.RequestedProcedureID = f"RP{series.study.accession_number[-6:]}"
    request.ScheduledProcedureStepID = f"SPS{series.study.accession_number[-6:]}"
    ds.RequestAttributesSequence = Sequence([request])
    scout = Dataset()
    scout.ReferencedSOPClassUID, scout.ReferencedSOPInstanceUID = ds.SOPClassUID, uid("scout", series.key)
    ds.ReferencedImageSequence = Sequence([scout])


def _private(ds: Dataset, series: SampleSeries) -> None:
    """Private blocks as large as scanners write them; their bytes follow from the series."""
    block = ds.private_block(0x0029, "KAAPANA-NB SAMPLE HEADER", create=True)
    block.add_new(0x10, "OB", hashlib.shake_256(series.key.encode()).digest(2048))
    block.add_new(0x18, "CS", series.modality)
    timing = ds.private_block(0x0019, "KAAPANA-NB SAMPLE TIMING", create=True)
    for element in range(0x10, 0x18):
        timing.add_new(element, "DS", decimal(series.number + element / 64))
