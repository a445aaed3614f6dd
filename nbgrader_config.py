"""nbgrader's settings for this course: `nbgrader generate_assignment`, `autograde`, `generate_feedback`, `export`."""

from autograder.nbgrader_plugin import install

c = get_config()  # type: ignore[name-defined] # noqa: F821 - nbgrader defines it

c.CourseDirectory.course_id = "sslcourse"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "labs"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "__pycache__", "*.py", "*.json"]

c.ClearSolutions.code_stub = {
    "python": 'raise NotImplementedError("not written yet: put your code in place of this line")'
}
c.ClearSolutions.text_stub = "*Your answer here.*"

install(c)  # black-box grading in `nbgrader autograde`: autograder/README.md

c.GenerateAssignment.preprocessors = [
    "nbgrader.preprocessors.LockCells",
    "autograder.nbgrader_plugin.ClearAnswers",
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.CheckCellMetadata",
    "nbgrader.preprocessors.ComputeChecksums",
    "nbgrader.preprocessors.SaveCells",
    "nbgrader.preprocessors.CheckCellMetadata",
]
