"""Read what users give and write what others read: tables, lists, COCO files, run lengths, whole
files.
"""
