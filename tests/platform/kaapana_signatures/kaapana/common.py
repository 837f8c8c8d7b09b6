"""What the base operators of both generations do with their arguments before Airflow sees them."""

from airflow.models import BaseOperator


class SignatureOnly(BaseOperator):
    """A real Airflow operator whose task id, directories and image are set as the platform sets them.

    ``**kwargs`` of the classes below end in Airflow's own constructor, which refuses what it does not know.
    """

    def set_defaults(self, *, name, task_id, parallel_id, keep_parallel_id, input_operator, operator_in_dir,
                     operator_out_dir):  # fmt: skip
        if input_operator is not None and operator_in_dir is not None:
            raise NameError("input_operator and operator_in_dir exclude each other")
        self.name = name
        self.parallel_id = parallel_id
        if parallel_id is None and keep_parallel_id and input_operator is not None:
            self.parallel_id = input_operator.parallel_id
        suffix = "" if self.parallel_id is None else f"-{self.parallel_id}"
        self.operator_out_dir = operator_out_dir or f"{name}{suffix}"
        if input_operator is not None:
            self.operator_in_dir = input_operator.operator_out_dir
        elif operator_in_dir is not None:
            self.operator_in_dir = operator_in_dir
        return task_id or f"{name}{suffix}"

    def execute(self, context):
        raise NotImplementedError(f"{type(self).__name__} is a signature only")
