"""Our parts of nbgrader's pipelines; `nbgrader_config.py` puts them in place."""

from typing import Any

from nbgrader.preprocessors import ClearSolutions


class ClearAnswers(ClearSolutions):
    """nbgrader's ClearSolutions, but a prediction keeps its template instead of `raise NotImplementedError`."""

    def preprocess_cell(self, cell: Any, resources: dict[str, Any], cell_index: int) -> tuple[Any, dict[str, Any]]:
        """Remove the solution from one cell."""
        if cell.metadata.get("sslcourse", {}).get("role") != "predict":
            return super().preprocess_cell(cell, resources, cell_index)
        kept, inside = [], False
        for line in cell.source.split("\n"):
            inside = inside or self.begin_solution_delimeter in line
            if not inside:
                kept.append(line)
            inside = inside and self.end_solution_delimeter not in line
        cell.source = "\n".join(kept)
        return cell, resources
