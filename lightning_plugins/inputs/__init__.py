"""Reading files and replies that other people wrote, within limits.

Everything here needs the standard library alone at import; NumPy, PyYAML and Pillow are imported
where they are used.
"""

from lightning_plugins.inputs.arrays import check_array_bytes as check_array_bytes
from lightning_plugins.inputs.arrays import read_npz as read_npz
from lightning_plugins.inputs.images import opened_image as opened_image
from lightning_plugins.inputs.limits import LIMITS as LIMITS
from lightning_plugins.inputs.limits import LimitError as LimitError
from lightning_plugins.inputs.limits import limit as limit
from lightning_plugins.inputs.messages import listed as listed
from lightning_plugins.inputs.messages import quoted as quoted
from lightning_plugins.inputs.names import file_name as file_name
from lightning_plugins.inputs.names import path_inside as path_inside
from lightning_plugins.inputs.structured_text import check_json_depth as check_json_depth
from lightning_plugins.inputs.structured_text import check_yaml as check_yaml
from lightning_plugins.inputs.structured_text import parse_json as parse_json
from lightning_plugins.inputs.structured_text import parse_yaml as parse_yaml
from lightning_plugins.inputs.tables import check_cells as check_cells
from lightning_plugins.inputs.tables import check_rows as check_rows
from lightning_plugins.inputs.tables import check_table_bytes as check_table_bytes
from lightning_plugins.inputs.tables import decompressed as decompressed
