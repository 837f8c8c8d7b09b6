from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
import SimpleITK as sitk
from dicom_maker import write_run
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from kaapana_nb.data import loaders
from kaapana_nb.data.batch import Batch, BatchElement
from kaapana_nb.data.loaders import has_loader, load_input, register_loader
from kaapana_nb.data.volume import SeriesVolume
from kaapana_nb.errors import AlgorithmError


@pytest.fixture
def element(tmp_path) -> BatchElement:
    return Batch.open(write_run(tmp_path, ("1",)))[0]


def test_every_annotation_of_the_documentation_has_its_loader(element):
    assert load_input(BatchElement, element) is element
    assert load_input(Path, element) == element.input_dir
    assert isinstance(load_input(sitk.Image, element), sitk.Image)
    assert isinstance(load_input(SeriesVolume, element), SeriesVolume)
    datasets = load_input(list[pydicom.Dataset], element)
    assert [dataset.InstanceNumber for dataset in datasets] == [5, 4, 3, 2, 1]
    assert len(datasets[0].PixelData) == 96


def test_deflated_datasets_are_inflated_and_whole(tmp_path):
    def edit(dataset, number):
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    (element,) = Batch.open(write_run(tmp_path, ("1",), edit=edit))
    (first, *_) = load_input(list[pydicom.Dataset], element)
    assert first.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert first.pixel_array.shape == (6, 8)


def test_an_unknown_annotation_names_what_there_is(element):
    assert not has_loader(int)
    with pytest.raises(AlgorithmError, match=r"of type list\[int\]; one of .*Image.*list\[Dataset\]"):
        load_input(list[int], element)


def test_a_type_of_ones_own(element, monkeypatch):
    class Mine:
        pass

    monkeypatch.setattr(loaders, "_LOADERS", dict(loaders._LOADERS))
    register_loader(Mine, lambda element: element.name)
    assert load_input(Mine, element) == element.name
