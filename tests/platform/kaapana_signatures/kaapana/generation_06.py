"""Constructors of Kaapana 0.6."""

import os
from datetime import timedelta

from kaapana.common import SignatureOnly

DEFAULT_REGISTRY = os.environ["DEFAULT_REGISTRY"]
KAAPANA_BUILD_VERSION = os.environ["KAAPANA_BUILD_VERSION"]


class KaapanaBaseOperator(SignatureOnly):
    def __init__(
        self, dag, name, image=None, input_operator=None, operator_in_dir=None, operator_out_dir=None, task_id=None,
        parallel_id=None, keep_parallel_id=True, trigger_rule="all_success", ram_mem_mb=500, ram_mem_mb_lmt=None,
        cpu_millicores=None, cpu_millicores_lmt=None, gpu_mem_mb=None, gpu_mem_mb_lmt=None, retries=1,
        retry_delay=timedelta(seconds=30), execution_timeout=timedelta(minutes=90), max_active_tis_per_dag=None,
        manage_cache=None, allow_federated_learning=False, whitelist_federated_learning=None,
        delete_input_on_success=False, delete_output_on_start=True, enable_proxy=False, no_proxy=None,
        batch_name=None, airflow_workflow_dir=None, cmds=None, arguments=None, env_vars=None,
        image_pull_secrets=None, priority_weight=1, priority_class_name="kaapana-low-priority",
        startup_timeout_seconds=3600, namespace=None, image_pull_policy="IfNotPresent", pod_resources=None,
        in_cluster=False, cluster_context=None, labels=None, get_logs=True, annotations=None, affinity=None,
        config_file=None, xcom_push=False, node_selectors=None, tolerations=None, secrets=None, kind="Pod",
        pool=None, pool_slots=None, api_version="v1", dev_server=None, display_name="-", **kwargs,
    ):  # fmt: skip
        if dev_server not in (None, "code-server"):
            raise NameError("dev_server is None or code-server")
        task = self.set_defaults(
            name=name, task_id=task_id, parallel_id=parallel_id, keep_parallel_id=keep_parallel_id,
            input_operator=input_operator, operator_in_dir=operator_in_dir, operator_out_dir=operator_out_dir,
        )  # fmt: skip
        self.image, self.ram_mem_mb, self.ram_mem_mb_lmt = image, ram_mem_mb, ram_mem_mb_lmt
        super().__init__(
            dag=dag, task_id=task, retries=retries, retry_delay=retry_delay, trigger_rule=trigger_rule,
            priority_weight=priority_weight, max_active_tis_per_dag=max_active_tis_per_dag,
            execution_timeout=None if dev_server else execution_timeout, **kwargs,
        )  # fmt: skip


class GetInputOperator(KaapanaBaseOperator):
    def __init__(self, dag, name="get-input-data", data_type="dicom", check_modality=False, parallel_downloads=3,
                 include_custom_tag_property="", exclude_custom_tag_property="", batch_name=None,
                 **kwargs):  # fmt: skip
        if data_type not in ("dicom", "json", "all"):
            raise NameError("data_type is dicom, json or all")
        super().__init__(
            dag=dag, name=name, image=f"{DEFAULT_REGISTRY}/get-input:{KAAPANA_BUILD_VERSION}",
            max_active_tis_per_dag=10, execution_timeout=timedelta(minutes=60), batch_name=batch_name, **kwargs,
        )  # fmt: skip


class DcmConverterOperator(KaapanaBaseOperator):
    def __init__(self, dag, output_format="nrrd", parallel_processes=3, env_vars=None,
                 execution_timeout=timedelta(hours=10), **kwargs):  # fmt: skip
        if output_format not in ("nrrd", "nii", "nii.gz"):
            raise NameError("output_format is nrrd, nii or nii.gz")
        super().__init__(dag=dag, name="dcm-converter", execution_timeout=execution_timeout, **kwargs)


class Itk2DcmSegOperator(KaapanaBaseOperator):
    def __init__(
        self, dag, segmentation_in_dir=None, segmentation_operator=None, name="nrrd2dcmseg",
        input_type="single_label_segs", alg_name=None, creator_name="kaapana", alg_type="AUTOMATIC",
        single_label_seg_info=None, create_multi_label_dcm_from_single_label_segs=False,
        multi_label_seg_info_json=None, multi_label_seg_name=None, series_description=None, skip_empty_slices=False,
        fail_on_no_segmentation_found=True, env_vars=None, execution_timeout=timedelta(minutes=90),
        allow_empty_segmentation=True, base_nifti_dir=None, empty_segmentation_label=99, meta_json_props=None,
        seg_attrs_props=None, **kwargs,
    ):  # fmt: skip
        if (segmentation_operator is None) == (segmentation_in_dir is None):
            raise NameError("one of segmentation_operator and segmentation_in_dir is needed")
        super().__init__(dag=dag, name=name, execution_timeout=execution_timeout, **kwargs)


class DcmSendOperator(KaapanaBaseOperator):
    def __init__(self, dag, name="dcmsend", ae_title="NONE", pacs_host="", pacs_port="11112", env_vars=None,
                 level="element", execution_timeout=timedelta(minutes=60), **kwargs):  # fmt: skip
        if level not in ("element", "batch"):
            raise NameError("level is element or batch")
        super().__init__(dag=dag, name=name, execution_timeout=execution_timeout, **kwargs)


class MinioOperator(KaapanaBaseOperator):
    def __init__(self, dag, name="transfer-files-with-minio", action="put", bucket_name=None, minio_prefix="",
                 batch_input_operators=(), none_batch_input_operators=(), source_files=(),
                 whitelisted_file_extensions=(".json",), zip_files=False, **kwargs):  # fmt: skip
        if action.lower() not in ("get", "put"):
            raise AssertionError("action is get or put")
        self.sources = [item.operator_out_dir for item in (*batch_input_operators, *none_batch_input_operators)]
        self.suffixes = tuple(whitelisted_file_extensions)
        super().__init__(dag=dag, name=name, max_active_tis_per_dag=10, execution_timeout=timedelta(minutes=60),
                         **kwargs)  # fmt: skip


class LocalWorkflowCleanerOperator(KaapanaBaseOperator):
    def __init__(self, dag, clean_workflow_dir=True, **kwargs):
        super().__init__(dag=dag, name="workflow-cleaner", **kwargs)


OPERATORS = (
    KaapanaBaseOperator, GetInputOperator, DcmConverterOperator, Itk2DcmSegOperator, DcmSendOperator, MinioOperator,
    LocalWorkflowCleanerOperator,
)  # fmt: skip
BASE_MODULE = {"default_registry": DEFAULT_REGISTRY, "kaapana_build_version": KAAPANA_BUILD_VERSION}
GLOBAL_VARIABLES = {
    "DEFAULT_REGISTRY": DEFAULT_REGISTRY,
    "KAAPANA_BUILD_VERSION": KAAPANA_BUILD_VERSION,
    "BATCH_NAME": "batch",
}
