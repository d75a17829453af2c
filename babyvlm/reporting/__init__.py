"Published values, and how this run stands beside them."
