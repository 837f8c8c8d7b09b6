"""Batches of DICOM series: opening, checking, reading as volumes, and writing typed results."""
