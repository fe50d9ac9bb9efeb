"""Space files drafted from data and a teacher."""
