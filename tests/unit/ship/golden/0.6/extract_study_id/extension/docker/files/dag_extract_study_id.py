"""DAG of extract-study-id, written by kaapana-nb: get input -> algorithm -> object store -> clean."""

from datetime import datetime, timedelta

from airflow.models import DAG
from extract_study_id.ExtractStudyIdOperator import ExtractStudyIdOperator
from kaapana.operators.GetInputOperator import GetInputOperator
from kaapana.operators.LocalWorkflowCleanerOperator import LocalWorkflowCleanerOperator
from kaapana.operators.MinioOperator import MinioOperator

ui_forms = {'workflow_form': {'type': 'object',
                   'properties': {'single_execution': {'title': 'single execution',
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

dag = DAG(dag_id="extract-study-id", default_args=args, schedule_interval=None, catchup=False)

get_input = GetInputOperator(dag=dag)
algorithm = ExtractStudyIdOperator(dag=dag, input_operator=get_input)
store = MinioOperator(dag=dag, action="put", batch_input_operators=[algorithm], whitelisted_file_extensions=('.json',))
clean = LocalWorkflowCleanerOperator(dag=dag, clean_workflow_dir=True)

get_input >> algorithm >> store >> clean
