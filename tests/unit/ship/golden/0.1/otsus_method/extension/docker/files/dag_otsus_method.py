"""DAG of otsus-method, written by kaapana-nb: get input -> convert -> algorithm -> DICOM SEG -> send to PACS -> clean."""

from datetime import datetime, timedelta

from airflow.models import DAG
from kaapana.operators.DcmConverterOperator import DcmConverterOperator
from kaapana.operators.DcmSendOperator import DcmSendOperator
from kaapana.operators.Itk2DcmSegOperator import Itk2DcmSegOperator
from kaapana.operators.LocalGetInputDataOperator import LocalGetInputDataOperator
from kaapana.operators.LocalWorkflowCleanerOperator import LocalWorkflowCleanerOperator
from otsus_method.OtsusMethodOperator import OtsusMethodOperator

ui_forms = {'workflow_form': {'type': 'object',
                   'properties': {'inside': {'title': 'inside',
                                             'description': 'Label of voxels up to the threshold '
                                                            '(the background).',
                                             'type': 'integer',
                                             'default': 0,
                                             'readOnly': False},
                                  'outside': {'title': 'outside',
                                              'description': 'Label of voxels above the threshold '
                                                             '(the foreground).',
                                              'type': 'integer',
                                              'default': 1,
                                              'readOnly': False},
                                  'single_execution': {'title': 'single execution',
                                                       'description': 'Should each series be '
                                                                      'processed separately?',
                                                       'type': 'boolean',
                                                       'default': False,
                                                       'readOnly': False}}}}

args = {
    "ui_forms": ui_forms,
    "ui_visible": True,
    "owner": "kaapana",
    "start_date": datetime(2026, 1, 1),
    "retries": 0,
    "retry_delay": timedelta(seconds=30),
}

dag = DAG(dag_id="otsus-method", default_args=args, schedule_interval=None, catchup=False)

get_input = LocalGetInputDataOperator(dag=dag)
convert = DcmConverterOperator(dag=dag, input_operator=get_input, output_format="nrrd")
algorithm = OtsusMethodOperator(dag=dag, input_operator=convert)
segmentation = Itk2DcmSegOperator(
    dag=dag,
    input_operator=get_input,
    segmentation_operator=algorithm,
    input_type="single_label_segs",
    single_label_seg_info='abdomen',
    series_description='otsus-method',
    skip_empty_slices=True,
)
send = DcmSendOperator(dag=dag, input_operator=segmentation)
clean = LocalWorkflowCleanerOperator(dag=dag, clean_workflow_dir=True)

get_input >> convert >> algorithm >> segmentation >> send >> clean
