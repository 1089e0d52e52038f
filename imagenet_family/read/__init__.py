"""Reading without preparing: data sources, tf.data, and tables that worker processes share."""
