"""Give each image a depth of its own: exits that are sure enough, or learned gates."""
