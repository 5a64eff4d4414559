"""Reading, tiling, augmenting and drawing data; import the modules, some need no Detectron2."""
