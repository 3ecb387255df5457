"""Read users' tables, text lists, COCO files and RLE masks; write output files atomically."""
