"""Constructors of Kaapana 0.1."""

import os
from datetime import timedelta

from kaapana.common import SignatureOnly

default_registry = os.environ["DEFAULT_REGISTRY"]
default_platform_abbr = os.environ["PLATFORM_ABBR"]
default_platform_version = os.environ["PLATFORM_VERSION"]


class KaapanaBaseOperator(SignatureOnly):
    def __init__(
        self, dag, name, image=None, input_operator=None, operator_in_dir=None, operator_out_dir=None, task_id=None,
        parallel_id=None, keep_parallel_id=True, trigger_rule="all_success", ram_mem_mb=500, ram_mem_mb_lmt=None,
        cpu_millicores=None, cpu_millicores_lmt=None, gpu_mem_mb=None, gpu_mem_mb_lmt=None, retries=1,
        retry_delay=timedelta(seconds=30), priority_weight=1, execution_timeout=timedelta(minutes=90),
        max_active_tis_per_dag=None, manage_cache=None, allow_federated_learning=False,
        whitelist_federated_learning=None, delete_input_on_success=False, batch_name=None, workflow_dir=None,
        cmds=None, arguments=None, env_vars=None, image_pull_secrets=None, startup_timeout_seconds=120,
        namespace="flow-jobs", image_pull_policy="IfNotPresent", volume_mounts=None, volumes=None,
        pod_resources=None, in_cluster=False, cluster_context=None, labels=None, get_logs=True, annotations=None,
        affinity=None, config_file=None, xcom_push=False, node_selectors=None, secrets=None, kind="Pod", pool=None,
        pool_slots=None, api_version="v1", dev_server=None, **kwargs,
    ):  # fmt: skip
        if dev_server not in (None, "code-server", "jupyterlab"):
            raise NameError("dev_server is None, code-server or jupyterlab")
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


class KaapanaPythonBaseOperator(SignatureOnly):
    def __init__(
        self, dag, name, python_callable=None, operator_out_dir=None, input_operator=None, operator_in_dir=None,
        task_id=None, parallel_id=None, keep_parallel_id=True, trigger_rule="all_success", retries=1,
        retry_delay=timedelta(seconds=30), execution_timeout=timedelta(minutes=30), max_active_tis_per_dag=None,
        manage_cache=None, allow_federated_learning=False, whitelist_federated_learning=None, batch_name=None,
        workflow_dir=None, delete_input_on_success=False, pool=None, pool_slots=None, ram_mem_mb=100,
        ram_mem_mb_lmt=None, cpu_millicores=None, cpu_millicores_lmt=None, gpu_mem_mb=None, gpu_mem_mb_lmt=None,
        **kwargs,
    ):  # fmt: skip
        task = self.set_defaults(
            name=name, task_id=task_id, parallel_id=parallel_id, keep_parallel_id=keep_parallel_id,
            input_operator=input_operator, operator_in_dir=operator_in_dir, operator_out_dir=operator_out_dir,
        )  # fmt: skip
        super().__init__(
            dag=dag, task_id=task, retries=retries, retry_delay=retry_delay, trigger_rule=trigger_rule,
            execution_timeout=execution_timeout, max_active_tis_per_dag=max_active_tis_per_dag, **kwargs,
        )  # fmt: skip


class LocalGetInputDataOperator(KaapanaPythonBaseOperator):
    def __init__(self, dag, inputs=None, name="get-input-data", data_type="dicom", check_modality=False,
                 cohort_limit=None, parallel_downloads=3, batch_name=None, **kwargs):  # fmt: skip
        if data_type not in ("dicom", "json"):
            raise NameError("data_type is dicom or json")
        super().__init__(dag=dag, name=name, batch_name=batch_name, max_active_tis_per_dag=10, **kwargs)


class DcmConverterOperator(KaapanaBaseOperator):
    def __init__(self, dag, output_format="nrrd", parallel_processes=3, env_vars=None,
                 execution_timeout=timedelta(hours=10), **kwargs):  # fmt: skip
        if output_format not in ("nrrd", "nii", "nii.gz"):
            raise NameError("output_format is nrrd, nii or nii.gz")
        super().__init__(dag=dag, name="dcm-converter", execution_timeout=execution_timeout, **kwargs)


class Itk2DcmSegOperator(KaapanaBaseOperator):
    def __init__(
        self, dag, name="nrrd2dcmseg", segmentation_in_dir=None, segmentation_operator=None,
        input_type="single_label_segs", alg_name=None, creator_name="kaapana", alg_type="AUTOMATIC",
        single_label_seg_info=None, create_multi_label_dcm_from_single_label_segs=False,
        multi_label_seg_info_json=None, multi_label_seg_name=None, series_description=None, skip_empty_slices=False,
        env_vars=None, execution_timeout=timedelta(minutes=90), **kwargs,
    ):  # fmt: skip
        if (segmentation_operator is None) == (segmentation_in_dir is None):
            raise NameError("one of segmentation_operator and segmentation_in_dir is needed")
        super().__init__(dag=dag, name=name, execution_timeout=execution_timeout, **kwargs)


class DcmSendOperator(KaapanaBaseOperator):
    def __init__(self, dag, name="dcmsend", ae_title="NONE", pacs_host="", pacs_port="11112", env_vars=None,
                 level="element", check_arrival=False, execution_timeout=timedelta(minutes=60),
                 **kwargs):  # fmt: skip
        if level not in ("element", "batch"):
            raise NameError("level is element or batch")
        super().__init__(dag=dag, name=name, execution_timeout=execution_timeout, **kwargs)


class LocalMinioOperator(KaapanaPythonBaseOperator):
    def __init__(self, dag, action="get", bucket_name=None, action_operators=None, action_operator_dirs=None,
                 action_files=None, minio_host="", minio_port="9000", file_white_tuples=None, zip_files=False,
                 **kwargs):  # fmt: skip
        if action not in ("get", "put", "remove"):
            raise AssertionError("action is get, put or remove")
        self.sources = [operator.operator_out_dir for operator in action_operators or ()]
        self.suffixes = tuple(file_white_tuples or ())
        super().__init__(dag=dag, name=f"minio-actions-{action}", **kwargs)


class LocalWorkflowCleanerOperator(KaapanaPythonBaseOperator):
    def __init__(self, dag, run_dir=None, clean_workflow_dir=True, **kwargs):
        super().__init__(dag=dag, name="workflow-cleaner", **kwargs)


OPERATORS = (
    KaapanaBaseOperator, KaapanaPythonBaseOperator, LocalGetInputDataOperator, DcmConverterOperator,
    Itk2DcmSegOperator, DcmSendOperator, LocalMinioOperator, LocalWorkflowCleanerOperator,
)  # fmt: skip
BASE_MODULE = {
    "default_registry": default_registry,
    "default_platform_abbr": default_platform_abbr,
    "default_platform_version": default_platform_version,
}
GLOBAL_VARIABLES = {"BATCH_NAME": "batch", "WORKFLOW_DIR": "data"}
