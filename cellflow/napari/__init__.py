"""The napari plugin: napari finds it through its manifest, ``napari.yaml``, and nothing else imports it."""
